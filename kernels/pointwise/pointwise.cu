// relu: out = max(x, 0)    add: out = a + b    twin: pointwise.metal    definition: scalar.rs
//   x, a, b, out [len] T, len a multiple of 8    launch: grid = ceil(len/8/256), block = 256
//   bound: memory, each byte once
#include "common.cuh"

struct PointwiseParams {
    u32 len;
};

// One thread per piece.
template <typename T>
__device__ __forceinline__ void relu(const T* __restrict__ x, T* __restrict__ out, PointwiseParams p) {
    const size_t at = ((size_t)blockIdx.x * BLOCK + threadIdx.x) * PIECE;
    if (at >= p.len) return;
    float v[PIECE];
    load(x + at, v);
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) v[i] = fmaxf(v[i], 0.0f);
    store(out + at, v);
}

template <typename T>
__device__ __forceinline__ void add(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out,
                                    PointwiseParams p) {
    const size_t at = ((size_t)blockIdx.x * BLOCK + threadIdx.x) * PIECE;
    if (at >= p.len) return;
    float v[PIECE], w[PIECE];
    load(a + at, v);
    load(b + at, w);
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) v[i] += w[i];
    store(out + at, v);
}

extern "C" __global__ void relu_f32(const float* x, float* out, PointwiseParams p) { relu(x, out, p); }
extern "C" __global__ void relu_f16(const half* x, half* out, PointwiseParams p) { relu(x, out, p); }
extern "C" __global__ void add_f32(const float* a, const float* b, float* out, PointwiseParams p) { add(a, b, out, p); }
extern "C" __global__ void add_f16(const half* a, const half* b, half* out, PointwiseParams p) { add(a, b, out, p); }
