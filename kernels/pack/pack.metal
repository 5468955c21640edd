// pack: [n, c, h, w] f32 to [n, h, w, cs] T, padding channels zero.    unpack: the inverse.    twin: pack.cu
//   launch: grid = (ceil(h * w / 256), 1, n), block = 256, one thread per pixel    bound: memory, each number once

struct PackParams {
    uint n, c, h, w, cs;
};

template <typename T>
[[kernel]] void pack(device const float* plain [[buffer(0)]], device T* map [[buffer(1)]],
                     constant PackParams& p [[buffer(2)]],
                     uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    uint pixels = p.h * p.w, pixel = 256 * block.x + tid.x;
    if (pixel >= pixels) return;
    device const float* from = plain + block.z * p.c * pixels + pixel;
    device T* to = map + (block.z * pixels + pixel) * p.cs;
    for (uint channel = 0; channel < p.cs; ++channel) {
        to[channel] = T(channel < p.c ? from[channel * pixels] : 0.0f);
    }
}

template <typename T>
[[kernel]] void unpack(device const T* map [[buffer(0)]], device float* plain [[buffer(1)]],
                       constant PackParams& p [[buffer(2)]],
                       uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    uint pixels = p.h * p.w, pixel = 256 * block.x + tid.x;
    if (pixel >= pixels) return;
    device const T* from = map + (block.z * pixels + pixel) * p.cs;
    device float* to = plain + block.z * p.c * pixels + pixel;
    for (uint channel = 0; channel < p.c; ++channel) {
        to[channel * pixels] = float(from[channel]);
    }
}

KERNEL_ENTRY(pack_f32, pack<float>);
KERNEL_ENTRY(pack_f16, pack<half>);
KERNEL_ENTRY(unpack_f32, unpack<float>);
KERNEL_ENTRY(unpack_f16, unpack<half>);
