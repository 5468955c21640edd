// prepare: 8-bit pixels to the network's input, by a table    twin: prepare.metal    definition: scalar.rs
//   bytes [pixels, p.bytes] u8, table [3, 256] f32, map [pixels, 8] T: a pixel's red, green and blue as the table has
//   them, then zeros
//   launch: grid = ceil(pixels/256), block = 256    bound: memory, each byte once
#include "common.cuh"

struct PrepareParams {
    u32 pixels, bytes, red, green, blue; // in all images; in a pixel; where in it
};

// One thread, one pixel. The table stays where it is, and comes to be in the first-level cache: a block that took it to
// shared memory would read as many of its numbers as it looks up, and would have to wait for them.
template <typename T>
__device__ __forceinline__ void prepare(const u8* __restrict__ bytes, const float* __restrict__ table,
                                        T* __restrict__ map,
                                        PrepareParams p) {
    const u32 pixel = blockIdx.x * BLOCK + threadIdx.x;
    if (pixel >= p.pixels) return;
    const u8* const at = bytes + (size_t)pixel * p.bytes;
    const float v[PIECE] = {table[at[p.red]], table[256 + at[p.green]], table[512 + at[p.blue]]};
    store(map + (size_t)pixel * PIECE, v);
}

extern "C" __global__ void prepare_f32(const u8* bytes, const float* table, float* map, PrepareParams p) {
    prepare(bytes, table, map, p);
}
extern "C" __global__ void prepare_f16(const u8* bytes, const float* table, half* map, PrepareParams p) {
    prepare(bytes, table, map, p);
}
