// cross_attend: out = x + softmax(norm(x) . keys * factor) . values, norm(x) = scale * x + shift
//   definition: scalar.rs
//   x, out [n, h*w, cs] T, kv [n, side*side, kv_cs] T, scale, shift [cs] f32; of kv channels 0..c are keys, c..2c
//   values, c <= 256
//   launch: grid = (ceil(h*w/16), 1, n), block = 256    twin: cross_attend.metal
//   bound: multiply-adds, 4*c*side*side per pixel
//
// A block has PIXELS pixels and processes KEYS keys at a time: their scores, their part of the softmax, and their part
// of the values' mean, which is scaled down when a later score is larger (online softmax). So the map of scores,
// [side*side, h, w], never exists, and any side works.
#include "cross_attend.cuh"

// A block's shared memory.
struct AttendTile {
    // STEP: channels of the keys at a time
    static constexpr u32 PIXELS = 16, CHANNELS = 256, KEYS = 64, STEP = 2 * PIECE;
    // The distance between the weights of two keys: longer than needed, to spread columns over the banks.
    static constexpr u32 WEIGHT_ROW = PIXELS + 4;

    float (*query)[PIXELS];      // [CHANNELS], after the norm
    float (*key)[KEYS];          // [STEP]
    float (*weight)[WEIGHT_ROW]; // [KEYS]: scores, then their exponentials
    float* rescale;              // [PIXELS]
};

// For the mean, a thread has 4 channels of ROWS pixels: 64 * ROWS channels keep all threads busy.
template <u32 ROWS, typename T>
__device__ __forceinline__ void attend(const T* __restrict__ x, const T* __restrict__ kv, T* __restrict__ out,
                                       AttendTile tile,
                                       const CrossAttendParams& p) {
    constexpr u32 PIXELS = AttendTile::PIXELS, KEYS = AttendTile::KEYS, STEP = AttendTile::STEP;
    const u32 thread = threadIdx.x, first_pixel = blockIdx.x * PIXELS, pixels = p.h * p.w, keys = p.side * p.side;
    const u32 row = thread / (16 * ROWS) * ROWS, channel = thread % (16 * ROWS) * 4;
    float mean[ROWS][4] = {}, greatest = -INFINITY, sum = 0.0f;
    for (u32 first_key = 0; first_key < keys; first_key += KEYS) {
        // Scores: a thread has 4 pixels and one key.
        const u32 j = thread % KEYS, four = thread / KEYS * 4;
        float score[4] = {};
        for (u32 first = 0; first < p.cs; first += STEP) {
            __syncthreads(); // the queries are stored; the last step's keys and the last keys' weights have been used
            if (thread < 2 * KEYS) {
                // Unless c is a multiple of 8, the last piece has values after its keys; queries are zero there.
                const u32 piece = thread / KEYS * PIECE;
                float v[PIECE] = {};
                if (first_key + j < keys && first + piece < p.cs) {
                    load(kv + (size_t)(first_key + j) * p.kv_cs + first + piece, v);
                }
#pragma unroll
                for (u32 i = 0; i < PIECE; i++) tile.key[piece + i][j] = v[i];
            }
            __syncthreads(); // the keys are stored
#pragma unroll
            for (u32 k = 0; k < STEP; k++) {
                float q[4];
                load(&tile.query[first + k][four], q);
#pragma unroll
                for (u32 i = 0; i < 4; i++) score[i] += q[i] * tile.key[k][j];
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) score[i] = first_key + j < keys ? score[i] * p.factor : -INFINITY;
        store(&tile.weight[j][four], score);
        __syncthreads(); // the scores are stored

        // Softmax: sixteen neighbouring lanes share a pixel, and each of them has its largest score and its sum.
        const u32 pixel = thread / 16, lane = thread % 16;
        float now = greatest, added = 0.0f;
        for (u32 k = lane; k < KEYS; k += 16) now = fmaxf(now, tile.weight[k][pixel]);
#pragma unroll
        for (u32 step = 8; step > 0; step /= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, step));
        for (u32 k = lane; k < KEYS; k += 16) added += tile.weight[k][pixel] = expf(tile.weight[k][pixel] - now);
#pragma unroll
        for (u32 step = 8; step > 0; step /= 2) added += __shfl_xor_sync(0xffffffffu, added, step);
        const float factor = expf(greatest - now);
        sum = sum * factor + added;
        greatest = now;
        if (lane == 0) tile.rescale[pixel] = factor;
        __syncthreads(); // the weights are stored

        // Mean of the values.
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
            for (u32 l = 0; l < 4; l++) mean[i][l] *= tile.rescale[row + i];
        }
        if (channel >= p.c) continue;
        const u32 there = min(KEYS, keys - first_key);
        const T* value = kv + (size_t)first_key * p.kv_cs + p.c + channel;
#pragma unroll 4
        for (u32 k = 0; k < there; k++, value += p.kv_cs) {
            float v[4];
            if (p.c % 4 == 0) {
                load(value, v);
            } else {
#pragma unroll
                for (u32 l = 0; l < 4; l++) v[l] = channel + l < p.c ? to_float(value[l]) : 0.0f;
            }
#pragma unroll
            for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
                for (u32 l = 0; l < 4; l++) mean[i][l] += tile.weight[k][row + i] * v[l];
            }
        }
    }
    __syncthreads(); // the last factors have been used
    if (thread % 16 == 0) tile.rescale[thread / 16] = 1.0f / sum;
    __syncthreads(); // the sums' reciprocals are stored
    if (channel >= p.cs) return;
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
        const u32 pixel = first_pixel + row + i;
        if (pixel >= pixels) return;
        float v[4];
        load(x + (size_t)pixel * p.cs + channel, v);
#pragma unroll
        for (u32 l = 0; l < 4; l++) v[l] += mean[i][l] * tile.rescale[row + i];
        store(out + (size_t)pixel * p.cs + channel, v);
    }
}

template <typename T>
__device__ __forceinline__ void cross_attend(const T* __restrict__ x, const float* __restrict__ scale,
                                             const float* __restrict__ shift,
                                             const T* __restrict__ kv, T* __restrict__ out, CrossAttendParams p) {
    constexpr u32 PIXELS = AttendTile::PIXELS, KEYS = AttendTile::KEYS, STEP = AttendTile::STEP;
    SHARED(float, query, [AttendTile::CHANNELS][PIXELS]);
    SHARED(float, key, [STEP][KEYS]);
    SHARED(float, weight, [KEYS][AttendTile::WEIGHT_ROW]);
    SHARED(float, rescale, [PIXELS]);
    const u32 first_pixel = blockIdx.x * PIXELS, pixels = p.h * p.w, pieces = ceil_div(p.cs, STEP) * 2;
    x += (size_t)blockIdx.z * pixels * p.cs;
    out += (size_t)blockIdx.z * pixels * p.cs;
    kv += (size_t)blockIdx.z * p.side * p.side * p.kv_cs;
    for (u32 i = threadIdx.x; i < PIXELS * pieces; i += BLOCK) {
        const u32 pixel = i % PIXELS, channel = i / PIXELS * PIECE;
        float v[PIECE] = {};
        if (first_pixel + pixel < pixels && channel < p.cs) {
            float factor[PIECE], addend[PIECE];
            load(x + (size_t)(first_pixel + pixel) * p.cs + channel, v);
            load(scale + channel, factor);
            load(shift + channel, addend);
#pragma unroll
            for (u32 j = 0; j < PIECE; j++) v[j] = v[j] * factor[j] + addend[j];
        }
#pragma unroll
        for (u32 j = 0; j < PIECE; j++) query[channel + j][pixel] = v[j];
    }
    const AttendTile tile = {query, key, weight, rescale};
    if (p.c <= 64) attend<1>(x, kv, out, tile, p);
    else if (p.c <= 128) attend<2>(x, kv, out, tile, p);
    else attend<4>(x, kv, out, tile, p);
}

extern "C" __global__ void __launch_bounds__(256) cross_attend_f32(
    const float* x, const float* scale, const float* shift, const float* kv, float* out, CrossAttendParams p) {
    cross_attend(x, scale, shift, kv, out, p);
}
extern "C" __global__ void __launch_bounds__(256) cross_attend_f16(
    const half* x, const float* scale, const float* shift, const half* kv, half* out, CrossAttendParams p) {
    cross_attend(x, scale, shift, kv, out, p);
}
