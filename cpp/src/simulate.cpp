#include "raftwright/simulate.hpp"
