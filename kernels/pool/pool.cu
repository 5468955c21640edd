// avg_pool: means of windows; the zero border counts    definition: scalar.rs    twin: pool.metal
//   x [n, h, w, cs], out [n, out_h, out_w, cs] T    launch: grid = (ceil(out_h*out_w*(cs/8)/256), 1, n), block = 256
//   bound: caches; a window of 17 by 17 at stride 8 reads each pixel four times
// global_avg_pool: the mean of each channel
//   x [n, h, w, cs], out [n, cs] T    launch: grid = (ceil(cs/32), 1, n), block = 256    bound: memory, the map once
// max_pool_to: the adaptive maximum of scale * x + shift
//   x [n, h, w, cs], out [n, side, side, cs] T, scale, shift [cs] f32
//   launch: grid = (ceil(side*side*(cs/8)/256), 1, n), block = 256
//   bound: memory, the map once (windows overlap by a pixel)
#include "common.cuh"

struct AvgPoolParams {
    u32 n, cs, h, w, out_h, out_w, window, stride, padding;
};

struct GlobalAvgPoolParams {
    u32 n, cs, h, w;
};

struct MaxPoolToParams {
    u32 n, cs, h, w, side;
};

// One thread per piece of an output pixel.
template <typename T>
__device__ __forceinline__ void avg_pool(const T* __restrict__ x, T* __restrict__ out, AvgPoolParams p) {
    const u32 pieces = p.cs / PIECE, i = blockIdx.x * BLOCK + threadIdx.x, pixel = i / pieces,
        channel = i % pieces * PIECE;
    if (pixel >= p.out_h * p.out_w) return;
    x += (size_t)blockIdx.z * p.h * p.w * p.cs + channel;
    // The part of the window that lies inside the map; it may be empty.
    const int top = (int)(pixel / p.out_w * p.stride) - (int)p.padding;
    const int left = (int)(pixel % p.out_w * p.stride) - (int)p.padding;
    const int bottom = min(top + (int)p.window, (int)p.h), right = min(left + (int)p.window, (int)p.w);
    float sum[PIECE] = {};
    for (int y = max(top, 0); y < bottom; y++) {
#pragma unroll 4
        for (int x_ = max(left, 0); x_ < right; x_++) {
            float v[PIECE];
            load(x + ((size_t)y * p.w + x_) * p.cs, v);
#pragma unroll
            for (u32 j = 0; j < PIECE; j++) sum[j] += v[j];
        }
    }
    const float share = 1.0f / (float)(p.window * p.window);
#pragma unroll
    for (u32 j = 0; j < PIECE; j++) sum[j] *= share;
    store(out + ((size_t)blockIdx.z * p.out_h * p.out_w + pixel) * p.cs + channel, sum);
}

// One block per 32 channels of an image: 4 pieces by 64 lanes of pixels.
template <typename T>
__device__ __forceinline__ void global_avg_pool(const T* __restrict__ x, T* __restrict__ out, GlobalAvgPoolParams p) {
    constexpr u32 LANES = BLOCK / 4;
    SHARED(float, partial, [LANES][4 * PIECE]);
    const u32 piece = threadIdx.x % 4 * PIECE, lane = threadIdx.x / 4, channel = blockIdx.x * 32 + piece,
        pixels = p.h * p.w;
    const bool exists = channel < p.cs;
    x += (size_t)blockIdx.z * pixels * p.cs + channel;
    float sum[PIECE] = {}, v[PIECE];
#pragma unroll 4
    for (u32 pixel = lane; exists && pixel < pixels; pixel += LANES) {
        load(x + (size_t)pixel * p.cs, v);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) sum[i] += v[i];
    }
    store(&partial[lane][piece], sum);
    for (u32 others = LANES / 2; others > 0; others /= 2) {
        __syncthreads(); // a lane adds what another lane has stored
        if (lane < others) {
            load(&partial[lane + others][piece], v);
#pragma unroll
            for (u32 i = 0; i < PIECE; i++) sum[i] += v[i];
            store(&partial[lane][piece], sum);
        }
    }
    if (lane > 0 || !exists) return;
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) sum[i] /= (float)pixels;
    store(out + (size_t)blockIdx.z * p.cs + channel, sum);
}

// One thread per piece of an output pixel.
template <typename T>
__device__ __forceinline__ void max_pool_to(const T* __restrict__ x, const float* __restrict__ scale,
                                            const float* __restrict__ shift,
                                            T* __restrict__ out, MaxPoolToParams p) {
    const u32 pieces = p.cs / PIECE, i = blockIdx.x * BLOCK + threadIdx.x, pixel = i / pieces,
        channel = i % pieces * PIECE;
    if (pixel >= p.side * p.side) return;
    const u32 row = pixel / p.side, column = pixel % p.side;
    // Window i of n over length l: floor(i * l / n) .. ceil((i + 1) * l / n).
    const u32 bottom = ceil_div((row + 1) * p.h, p.side), right = ceil_div((column + 1) * p.w, p.side);
    float factor[PIECE], addend[PIECE], greatest[PIECE];
    load(scale + channel, factor);
    load(shift + channel, addend);
#pragma unroll
    for (u32 j = 0; j < PIECE; j++) greatest[j] = -INFINITY;
    for (u32 y = row * p.h / p.side; y < bottom; y++) {
        for (u32 x_ = column * p.w / p.side; x_ < right; x_++) {
            float v[PIECE];
            load(x + (((size_t)blockIdx.z * p.h + y) * p.w + x_) * p.cs + channel, v);
#pragma unroll
            for (u32 j = 0; j < PIECE; j++) greatest[j] = fmaxf(greatest[j], v[j] * factor[j] + addend[j]);
        }
    }
    store(out + ((size_t)blockIdx.z * p.side * p.side + pixel) * p.cs + channel, greatest);
}

extern "C" __global__ void avg_pool_f32(const float* x, float* out, AvgPoolParams p) { avg_pool(x, out, p); }
extern "C" __global__ void avg_pool_f16(const half* x, half* out, AvgPoolParams p) { avg_pool(x, out, p); }
extern "C" __global__ void global_avg_pool_f32(const float* x, float* out, GlobalAvgPoolParams p) {
    global_avg_pool(x, out, p);
}
extern "C" __global__ void global_avg_pool_f16(const half* x, half* out, GlobalAvgPoolParams p) {
    global_avg_pool(x, out, p);
}
extern "C" __global__ void max_pool_to_f32(
    const float* x, const float* scale, const float* shift, float* out, MaxPoolToParams p) {
    max_pool_to(x, scale, shift, out, p);
}
extern "C" __global__ void max_pool_to_f16(
    const half* x, const float* scale, const float* shift, half* out, MaxPoolToParams p) {
    max_pool_to(x, scale, shift, out, p);
}
