// concat: copies one part into a map of several parts, concatenated by channel    twin: concat.metal
//   part [n, pixels, part_cs], out [n, pixels, out_cs] T; channels offset .. offset + width of out come from the part,
//   and are zero past its last
//   launch: grid = (ceil(pixels*width/256), 1, n), block = 256    bound: memory, each byte once
#include "common.cuh"

struct ConcatParams {
    u32 n, pixels, part_c, part_cs, out_cs, offset, width;
};

// One thread per channel of a pixel; neighbouring threads have neighbouring channels.
template <typename T>
__device__ __forceinline__ void concat(const T* __restrict__ part, T* __restrict__ out, ConcatParams p) {
    const u32 i = blockIdx.x * BLOCK + threadIdx.x, pixel = i / p.width, channel = i % p.width;
    if (pixel >= p.pixels) return;
    const size_t at = (size_t)blockIdx.z * p.pixels + pixel;
    out[at * p.out_cs + p.offset + channel] = channel < p.part_c ? part[at * p.part_cs + channel] : T(0.0f);
}

extern "C" __global__ void concat_f32(const float* part, float* out, ConcatParams p) { concat(part, out, p); }
extern "C" __global__ void concat_f16(const half* part, half* out, ConcatParams p) { concat(part, out, p); }
