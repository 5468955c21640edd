// prepare: 8-bit pixels to the network's input, by a table.    twin: prepare.cu    definition: scalar.rs
//   bytes [n, p.photo_h, p.photo_w, p.bytes] u8, table [3, 256] f32, map [n, p.h, p.w, 8] T: the table's numbers for
//   red, green and blue, then zeros; if photos are padded at the bottom and right (by zeros), the map is larger
//   launch: grid = ceil(pixels / 256), block = 256, one thread per pixel    bound: memory, each byte once
//   The table stays in device memory: to copy it, a threadgroup would read as many numbers as it looks up.

struct PrepareParams {
    uint pixels, bytes, red, green, blue; // pixels of all images of the map; bytes per pixel; offsets in a pixel
    uint h, w, photo_h, photo_w;
};

template <typename T>
[[kernel]] void prepare(device const uchar* bytes [[buffer(0)]], device const float* table [[buffer(1)]],
                        device T* map [[buffer(2)]],
                        constant PrepareParams& p [[buffer(3)]], uint3 block [[threadgroup_position_in_grid]],
                        uint3 tid [[thread_position_in_threadgroup]]) {
    uint pixel = 256 * block.x + tid.x;
    if (pixel >= p.pixels) return;
    uint column = pixel % p.w, line = pixel / p.w, row = line % p.h, image = line / p.h;
    float4 rgb = float4(0.0f);
    if (row < p.photo_h && column < p.photo_w) {
        device const uchar* at = bytes + ((image * p.photo_h + row) * p.photo_w + column) * p.bytes;
        rgb = float4(table[at[p.red]], table[256 + at[p.green]], table[512 + at[p.blue]], 0.0f);
    }
    store4(map + 8 * pixel, rgb);
    store4(map + 8 * pixel + 4, float4(0.0f));
}

KERNEL_ENTRY(prepare_f32, prepare<float>);
KERNEL_ENTRY(prepare_f16, prepare<half>);
