#include "raftwright/checksum.hpp"
