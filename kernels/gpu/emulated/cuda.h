// The subset of CUDA that our kernels use, on top of fibers.h.

#pragma once
#include "fibers.h"

using emulation::uint;
typedef emulation::Half __half;
typedef __half half;

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (::emulation::engine().running->thread)
#define blockIdx (::emulation::engine().block)
#define blockDim (::emulation::engine().block_size)
#define gridDim (::emulation::engine().grid)
constexpr int warpSize = 32;

inline void __syncthreads() { emulation::barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulation::meet(0, [](uint, uint64_t) {}); }
template <typename T> inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulation::from_lane(value, emulation::lane() ^ uint(mask));
}
template <typename T> inline T __shfl_down_sync(unsigned, T value, unsigned delta) {
    return emulation::from_lane(value, emulation::lane() + delta);
}
template <typename T> inline T __shfl_sync(unsigned, T value, int source) { return emulation::from_lane(value, uint(source) % 32); }

inline float __half2float(__half value) { return value; }
inline __half __float2half(float value) { return value; }
inline __half __float2half_rn(float value) { return value; }

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
