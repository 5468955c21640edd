// Shared by cross_attend.cu and cross_attend_mma.cu: the parameters.
#pragma once
#include "common.cuh"

struct CrossAttendParams {
    u32 n, h, w, c, cs, kv_cs, side;
    float factor;
};
