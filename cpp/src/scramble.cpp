#include "raftwright/scramble.hpp"
