#include "raftwright/mosaic.hpp"
