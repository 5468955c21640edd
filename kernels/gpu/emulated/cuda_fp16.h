// Half precision is part of cuda.h here.

#pragma once
#include "cuda.h"
