#include "raftwright/rice.hpp"
