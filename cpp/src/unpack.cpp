#include "raftwright/unpack.hpp"
