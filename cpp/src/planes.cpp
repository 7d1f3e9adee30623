#include "raftwright/planes.hpp"
