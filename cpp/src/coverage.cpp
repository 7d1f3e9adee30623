#include "raftwright/coverage.hpp"
