// prepare: 8-bit pixels to the network's input, by a table    twin: prepare.metal    definition: scalar.rs
//   bytes [n, p.photo_h, p.photo_w, p.bytes] u8, table [3, 256] f32, map [n, p.h, p.w, 8] T: the table's numbers for
//   red, green and blue, then zeros; if photos are padded at the bottom and right (by zeros), the map is larger
//   launch: grid = ceil(pixels/256), block = 256    bound: memory, each byte once
#include "common.cuh"

struct PrepareParams {
    u32 pixels, bytes, red, green, blue; // pixels of all images of the map; bytes per pixel; offsets in a pixel
    u32 h, w, photo_h, photo_w;
};

// One thread per pixel. The table stays in global memory and ends up in the first-level cache: a block that copied it
// to shared memory would read as many of its numbers as it looks up, and would have to wait for them.
template <typename T>
__device__ __forceinline__ void prepare(const u8* __restrict__ bytes, const float* __restrict__ table,
                                        T* __restrict__ map,
                                        PrepareParams p) {
    const u32 pixel = blockIdx.x * BLOCK + threadIdx.x;
    if (pixel >= p.pixels) return;
    const u32 column = pixel % p.w, line = pixel / p.w, row = line % p.h, image = line / p.h;
    float v[PIECE] = {};
    if (row < p.photo_h && column < p.photo_w) {
        const u8* const at = bytes + (((size_t)image * p.photo_h + row) * p.photo_w + column) * p.bytes;
        v[0] = table[at[p.red]], v[1] = table[256 + at[p.green]], v[2] = table[512 + at[p.blue]];
    }
    store(map + (size_t)pixel * PIECE, v);
}

extern "C" __global__ void prepare_f32(const u8* bytes, const float* table, float* map, PrepareParams p) {
    prepare(bytes, table, map, p);
}
extern "C" __global__ void prepare_f16(const u8* bytes, const float* table, half* map, PrepareParams p) {
    prepare(bytes, table, map, p);
}
