// resize: out = bilinear(x, size of out)    resize_add: that plus base    twin: resize_add.metal
//   definition: scalar.rs
//   x [n, h, w, cs], base and out [n, out_h, out_w, cs] T
//   launch: grid = (ceil(out_h*out_w*(cs/8)/256), 1, n), block = 256
//   bound: memory, the output's bytes; the four taps of neighbouring pixels share cache lines
#include "common.cuh"

struct ResizeParams {
    u32 n, cs, h, w, out_h, out_w;
    float ratio_y, ratio_x; // pixels of the input per pixel of the output
};

// One thread per piece of an output pixel.
template <bool ADD, typename T>
__device__ __forceinline__ void resize(const T* __restrict__ x, const T* __restrict__ base, T* __restrict__ out,
                                       ResizeParams p) {
    const u32 pieces = p.cs / PIECE, i = blockIdx.x * BLOCK + threadIdx.x, pixel = i / pieces;
    if (pixel >= p.out_h * p.out_w) return;
    const u32 channel = i % pieces * PIECE;
    const Tap down = tap(pixel / p.out_w, p.h, p.ratio_y), across = tap(pixel % p.out_w, p.w, p.ratio_x);
    x += (size_t)blockIdx.z * p.h * p.w * p.cs + channel;
    const size_t at = ((size_t)blockIdx.z * p.out_h * p.out_w + pixel) * p.cs + channel;

    float top_left[PIECE], bottom_left[PIECE], top_right[PIECE], bottom_right[PIECE], v[PIECE];
    load(x + ((size_t)down.first * p.w + across.first) * p.cs, top_left);
    load(x + ((size_t)down.second * p.w + across.first) * p.cs, bottom_left);
    load(x + ((size_t)down.first * p.w + across.second) * p.cs, top_right);
    load(x + ((size_t)down.second * p.w + across.second) * p.cs, bottom_right);
    if (ADD) load(base + at, v);
#pragma unroll
    for (u32 j = 0; j < PIECE; j++) {
        const float left = mix(top_left[j], bottom_left[j], down.weight);
        const float right = mix(top_right[j], bottom_right[j], down.weight);
        v[j] = mix(left, right, across.weight) + (ADD ? v[j] : 0.0f);
    }
    store(out + at, v);
}

extern "C" __global__ void resize_f32(const float* x, float* out, ResizeParams p) { resize<false>(x, x, out, p); }
extern "C" __global__ void resize_f16(const half* x, half* out, ResizeParams p) { resize<false>(x, x, out, p); }
extern "C" __global__ void resize_add_f32(const float* x, const float* base, float* out, ResizeParams p) {
    resize<true>(x, base, out, p);
}
extern "C" __global__ void resize_add_f16(const half* x, const half* base, half* out, ResizeParams p) {
    resize<true>(x, base, out, p);
}
