#include "raftwright/stream_layout.hpp"
