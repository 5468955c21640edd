// Shared by conv.cu and conv_mma.cu: parameters, the window of a pixel, the prologue, the epilogue.
#pragma once
#include "common.cuh"

struct ConvParams {
    u32 n, h, w, in_c, in_cs, out_h, out_w, out_c, out_cs, window, stride;
    u32 flags; // bit 0: prologue; 1: its ReLU; 2: residual; 3 and 4: activation
};

// The location of an output pixel's inputs.
struct Window {
    int y, x; // the first tap's; may be outside the map, and is far outside if the pixel does not exist

    __device__ __forceinline__ Window(const ConvParams& p, u32 pixel) {
        const int padding = (int)(p.window / 2);
        const bool exists = pixel < p.out_h * p.out_w;
        y = exists ? (int)(pixel / p.out_w * p.stride) - padding : -4;
        x = (int)(pixel % p.out_w * p.stride) - padding;
    }
};

// The inputs for row `row` of the weights (a tap and 8 channels, starting at `channel`); null if they are zeros.
template <typename T>
__device__ __forceinline__ const T* source(const T* in, const Window& at, u32 row, u32 rows, const ConvParams& p,
                                           u32& channel) {
    const u32 tap = row / p.in_cs;
    channel = row - tap * p.in_cs;
    const int y = at.y + (int)(tap / p.window), x = at.x + (int)(tap % p.window);
    const bool inside = row < rows && y >= 0 && y < (int)p.h && x >= 0 && x < (int)p.w;
    return inside ? in + ((size_t)y * p.w + x) * p.in_cs + channel : nullptr;
}

__device__ __forceinline__ void prologue(float (&v)[PIECE], const float* scale, const float* shift, u32 channel,
                                         u32 flags) {
    float factor[PIECE], addend[PIECE];
    load(scale + channel, factor);
    load(shift + channel, addend);
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) {
        v[i] = v[i] * factor[i] + addend[i];
        if (flags & 2) v[i] = fmaxf(v[i], 0.0f);
    }
}

// Loads eight inputs and applies the prologue; `v` must be zero before.
template <typename T>
__device__ __forceinline__ void fetch(float (&v)[PIECE], const T* in, const float* scale, const float* shift,
                                      const Window& at, u32 row,
                                      u32 rows, const ConvParams& p) {
    u32 channel;
    const T* const from = source(in, at, row, rows, p, channel);
    if (from == nullptr) return; // the padding's zeros are applied after the norm
    load(from, v);
    if (p.flags & 1) prologue(v, scale, shift, channel, p.flags);
}

// Converts sums of LEN channels to outputs: bias, residual, activation.
template <u32 LEN, typename T>
__device__ __forceinline__ void finish(float (&sum)[LEN], u32 pixel, u32 channel, const float* bias, const T* residual,
                                       T* out, const ConvParams& p) {
    const size_t at = ((size_t)blockIdx.z * p.out_h * p.out_w + pixel) * p.out_cs + channel;
    float addend[LEN];
    load(bias + channel, addend);
#pragma unroll
    for (u32 i = 0; i < LEN; i++) sum[i] += addend[i];
    if (p.flags & 4) {
        load(residual + at, addend);
#pragma unroll
        for (u32 i = 0; i < LEN; i++) sum[i] += addend[i];
    }
#pragma unroll
    for (u32 i = 0; i < LEN; i++) sum[i] = activate(sum[i], p.flags >> 3 & 3);
    store(out + at, sum);
}
