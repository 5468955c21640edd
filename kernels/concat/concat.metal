// concat: copies a part's channels to their place among all channels; zero past its last.    twin: concat.cu
//   part [n, pixels, part_cs] T, out [n, pixels, out_cs] T; writes channels offset .. offset + width
//   launch: one per part, grid = (ceil(pixels * width / 256), 1, n), block = 256, one thread per number
//   bound: memory, each number once

struct ConcatParams {
    uint n, pixels, part_c, part_cs, out_cs, offset, width;
};

template <typename T>
[[kernel]] void concat(device const T* part [[buffer(0)]], device T* out [[buffer(1)]],
                       constant ConcatParams& p [[buffer(2)]],
                       uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    uint index = 256 * block.x + tid.x;
    if (index >= p.pixels * p.width) return;
    uint pixel = block.z * p.pixels + index / p.width, channel = index % p.width;
    out[pixel * p.out_cs + p.offset + channel] = channel < p.part_c ? part[pixel * p.part_cs + channel] : T(0.0f);
}

KERNEL_ENTRY(concat_f32, concat<float>);
KERNEL_ENTRY(concat_f16, concat<half>);
