#include "raftwright/cpu.hpp"
