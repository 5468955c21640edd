// Shared by all .cu files: pieces of channels, activations, taps of a resize, sums over a warp.
//
// Maps are NHWC, with channels padded with zeros to a stride `cs`, a multiple of 8. T is float or half; every
// computation is in float.
#pragma once
#include <cuda_fp16.h>

#ifndef INFINITY // NVRTC has no <math.h>
#define INFINITY __int_as_float(0x7f800000)
#endif

typedef unsigned int u32;
typedef unsigned char u8;
typedef unsigned short u16;

// Shared memory of a block; `dims` as in [16][64].
#ifndef SHARED
#define SHARED(T, name, dims) __shared__ alignas(16) T name dims
#endif

// Threads per block, unless a kernel says otherwise.
constexpr u32 BLOCK = 256;

// Eight consecutive channels: 16 bytes of half, 32 of float; always aligned to its size.
constexpr u32 PIECE = 8;

__device__ __forceinline__ u32 ceil_div(u32 a, u32 b) { return (a + b - 1) / b; }

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(half x) { return __half2float(x); }

// `LEN` channels in one access: 4 or 8.
template <u32 LEN> __device__ __forceinline__ void load(const float* from, float (&to)[LEN]) {
#pragma unroll
    for (u32 i = 0; i < LEN; i += 4) {
        const float4 v = *reinterpret_cast<const float4*>(from + i);
        to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
}

template <u32 LEN> __device__ __forceinline__ void store(float* to, const float (&from)[LEN]) {
#pragma unroll
    for (u32 i = 0; i < LEN; i += 4) {
        *reinterpret_cast<float4*>(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    }
}

template <u32 LEN> struct alignas(2 * LEN) Halves {
    half at[LEN];
};

template <u32 LEN> __device__ __forceinline__ void load(const half* from, float (&to)[LEN]) {
    const Halves<LEN> v = *reinterpret_cast<const Halves<LEN>*>(from);
#pragma unroll
    for (u32 i = 0; i < LEN; i++) to[i] = __half2float(v.at[i]);
}

template <u32 LEN> __device__ __forceinline__ void store(half* to, const float (&from)[LEN]) {
    Halves<LEN> v;
#pragma unroll
    for (u32 i = 0; i < LEN; i++) v.at[i] = __float2half_rn(from[i]);
    *reinterpret_cast<Halves<LEN>*>(to) = v;
}

// The two input pixels that an output pixel of a resize reads: `first` with weight 1 - weight, `second` with weight. As
// `resize_add::Axis::tap`.
struct Tap {
    u32 first, second;
    float weight;
};

// `ratio`: pixels of the input per pixel of the output; `len`: of the input.
__device__ __forceinline__ Tap tap(u32 i, u32 len, float ratio) {
    // Not a fused multiply-add, as in Paddle. Truncation equals the floor, because nothing here is negative.
    const float source = fmaxf(__fsub_rn(__fmul_rn(ratio, (float)i + 0.5f), 0.5f), 0.0f);
    Tap t;
    t.first = min((u32)source, len - 1);
    t.second = min(t.first + 1, len - 1);
    t.weight = source - (float)t.first;
    return t;
}

__device__ __forceinline__ float mix(float a, float b, float weight) { return a + weight * (b - a); }

// The last step of a convolution; `activation` is bits 3 and 4 of its flags.
__device__ __forceinline__ float activate(float x, u32 activation) {
    if (activation == 1) return fmaxf(x, 0.0f);
    if (activation == 2) return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); // GELU
    return x;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
