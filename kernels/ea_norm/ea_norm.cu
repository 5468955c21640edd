// The grouped double normalization of GPU-friendly attention, in place: softmax over the pixels of each channel, then
// every pixel divided by its sum over the channels of its group plus 1e-6.
//   twin: ea_norm.metal    definition: scalar.rs
//
// ea_stats: each channel's largest logit and sum of exponentials, per split of the pixels (pixel p is in split p %
// splits)
//   x [n, pixels, cs] T, stats [n, splits, cs, 2] f32    launch: grid = (ceil(cs/32), splits, n), block = 256
//   bound: memory, 1 read
// ea_norm: both normalizations
//   stats, x in place, padding is unchanged    launch: grid = (ceil(pixels/64), groups, n), block = 256
//   bound: memory, 1 read + 1 write
//
// The softmax needs all pixels of a channel, the L1 norm all channels of a pixel. Largest logit and sum come from one
// pass (online softmax: Milakov and Gimelshein, arXiv:1805.02867); softmax, sum over the group and quotient come from
// another, in registers. Weights are never stored between the two normalizations, so in half precision only the result
// is rounded.
#include "common.cuh"

struct EaStatsParams {
    u32 n, c, cs, pixels, splits;
};

struct EaNormParams {
    u32 n, c, cs, pixels, groups, splits;
};

// For the logits seen so far: the largest, and the sum of exp(logit - greatest).
struct Seen {
    float greatest, sum;
};

__device__ __forceinline__ Seen merged(Seen a, Seen b) {
    // One of the two exponentials is exp(0); before any logit has been seen, the largest is -infinity.
    const float factor = a.greatest == b.greatest ? 1.0f : expf(-fabsf(a.greatest - b.greatest));
    Seen m;
    m.greatest = fmaxf(a.greatest, b.greatest);
    m.sum = a.greatest < b.greatest ? a.sum * factor + b.sum : a.sum + b.sum * factor;
    return m;
}

// One lane per channel; a warp processes one pixel at a time.
template <typename T>
__device__ __forceinline__ void ea_stats(const T* __restrict__ x, float* __restrict__ stats, EaStatsParams p) {
    constexpr u32 WARPS = BLOCK / 32;
    SHARED(float, greatest, [WARPS][32]);
    SHARED(float, sum, [WARPS][32]);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = blockIdx.x * 32 + lane, split = blockIdx.y;
    const bool exists = channel < p.cs;
    x += (size_t)blockIdx.z * p.pixels * p.cs + channel;
    Seen seen = {-INFINITY, 0.0f};
#pragma unroll 4
    for (u32 pixel = split + warp * p.splits; exists && pixel < p.pixels; pixel += WARPS * p.splits) {
        seen = merged(seen, {to_float(x[(size_t)pixel * p.cs]), 1.0f});
    }
    greatest[warp][lane] = seen.greatest;
    sum[warp][lane] = seen.sum;
    __syncthreads(); // all warps have stored their results
    if (warp > 0 || !exists) return;
    for (u32 other = 1; other < WARPS; other++) seen = merged(seen, {greatest[other][lane], sum[other][lane]});
    stats += (((size_t)blockIdx.z * p.splits + split) * p.cs + channel) * 2;
    stats[0] = seen.greatest;
    stats[1] = seen.sum;
}

// One warp per pixel; its lanes are channels.
template <typename T>
__device__ __forceinline__ void ea_norm(const float* __restrict__ stats, T* __restrict__ x, EaNormParams p) {
    constexpr u32 WARPS = BLOCK / 32, MAX_GROUP = 1024, TILE = 64; // TILE: pixels per block
    SHARED(float, greatest, [MAX_GROUP]);
    SHARED(float, share, [MAX_GROUP]);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = p.c / p.groups, first = blockIdx.y * group;
    stats += ((size_t)blockIdx.z * p.splits * p.cs + first) * 2;
    for (u32 channel = threadIdx.x; channel < group; channel += BLOCK) {
        Seen seen = {-INFINITY, 0.0f};
        for (u32 split = 0; split < p.splits; split++) {
            const float* const part = stats + ((size_t)split * p.cs + channel) * 2;
            seen = merged(seen, {part[0], part[1]});
        }
        greatest[channel] = seen.greatest;
        share[channel] = 1.0f / seen.sum;
    }
    __syncthreads(); // every channel's statistics are stored
    x += (size_t)blockIdx.z * p.pixels * p.cs + first;
    const u32 end = min((blockIdx.x + 1) * TILE, p.pixels);
    for (u32 pixel = blockIdx.x * TILE + warp; pixel < end; pixel += WARPS) {
        T* const at = x + (size_t)pixel * p.cs;
        float sum = 0.0f;
        for (u32 channel = lane; channel < group; channel += 32) {
            sum += expf(to_float(at[channel]) - greatest[channel]) * share[channel];
        }
        sum = warp_sum(sum) + 1e-6f;
        for (u32 channel = lane; channel < group; channel += 32) {
            at[channel] = T(expf(to_float(at[channel]) - greatest[channel]) * share[channel] / sum);
        }
    }
}

extern "C" __global__ void ea_stats_f32(const float* x, float* stats, EaStatsParams p) { ea_stats(x, stats, p); }
extern "C" __global__ void ea_stats_f16(const half* x, float* stats, EaStatsParams p) { ea_stats(x, stats, p); }
extern "C" __global__ void ea_norm_f32(const float* stats, float* x, EaNormParams p) { ea_norm(stats, x, p); }
extern "C" __global__ void ea_norm_f16(const float* stats, half* x, EaNormParams p) { ea_norm(stats, x, p); }
