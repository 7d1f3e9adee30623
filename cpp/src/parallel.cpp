#include "raftwright/parallel.hpp"
