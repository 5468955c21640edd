// pack: planes of a photo to a map    unpack: a map to planes    twin: pack.metal
//   planes [n, c, h, w] f32, map [n, h, w, cs] T    launch: grid = (ceil(h*w/256), 1, n), block = 256
//   bound: memory, each byte once; a warp's accesses to a plane are whole lines
#include "common.cuh"

struct PackParams {
    u32 n, c, h, w, cs;
};

// One thread per pixel.
template <typename T>
__device__ __forceinline__ void pack(const float* __restrict__ in, T* __restrict__ out, PackParams p) {
    const u32 pixel = blockIdx.x * BLOCK + threadIdx.x, pixels = p.h * p.w;
    if (pixel >= pixels) return;
    in += (size_t)blockIdx.z * p.c * pixels + pixel;
    out += ((size_t)blockIdx.z * pixels + pixel) * p.cs;
    for (u32 channel = 0; channel < p.cs; channel += PIECE) {
        float v[PIECE];
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) v[i] = channel + i < p.c ? in[(size_t)(channel + i) * pixels] : 0.0f;
        store(out + channel, v);
    }
}

template <typename T>
__device__ __forceinline__ void unpack(const T* __restrict__ in, float* __restrict__ out, PackParams p) {
    const u32 pixel = blockIdx.x * BLOCK + threadIdx.x, pixels = p.h * p.w;
    if (pixel >= pixels) return;
    in += ((size_t)blockIdx.z * pixels + pixel) * p.cs;
    out += (size_t)blockIdx.z * p.c * pixels + pixel;
    for (u32 channel = 0; channel < p.cs; channel += PIECE) {
        float v[PIECE];
        load(in + channel, v);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) {
            if (channel + i < p.c) out[(size_t)(channel + i) * pixels] = v[i];
        }
    }
}

extern "C" __global__ void pack_f32(const float* in, float* out, PackParams p) { pack(in, out, p); }
extern "C" __global__ void pack_f16(const float* in, half* out, PackParams p) { pack(in, out, p); }
extern "C" __global__ void unpack_f32(const float* in, float* out, PackParams p) { unpack(in, out, p); }
extern "C" __global__ void unpack_f16(const half* in, float* out, PackParams p) { unpack(in, out, p); }
