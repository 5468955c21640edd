// resize: bilinear, half-pixel centres.    resize_add: the same, plus a map.    twin: resize_add.cu
//   definition: scalar.rs
//   x [n, h, w, cs] T, base and out [n, out_h, out_w, cs] T
//   launch: grid = (ceil(out_h * out_w * cs / 8 / 256), 1, n), block = 256, one thread per eight channels of a pixel
//   bound: memory, x and base once, out once

struct ResizeParams {
    uint n, cs, h, w, out_h, out_w;
    float ratio_y, ratio_x;
};

// Four channels of an output pixel; `image` begins at these channels.
template <typename T> inline float4 resized(device const T* image, constant ResizeParams& p, Tap y, Tap x) {
    device const T* above = image + y.first * p.w * p.cs;
    device const T* below = image + y.second * p.w * p.cs;
    float4 left = blend(load4(above + x.first * p.cs), load4(below + x.first * p.cs), y.weight);
    float4 right = blend(load4(above + x.second * p.cs), load4(below + x.second * p.cs), y.weight);
    return blend(left, right, x.weight);
}

template <typename T>
[[kernel]] void resize(device const T* x [[buffer(0)]], device T* out [[buffer(1)]],
                       constant ResizeParams& p [[buffer(2)]],
                       uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    uint index = 256 * block.x + tid.x, pixels = p.out_h * p.out_w, pixel = index / (p.cs / 8);
    if (pixel >= pixels) return;
    Tap row = tap_of(p.ratio_y, pixel / p.out_w, p.h), column = tap_of(p.ratio_x, pixel % p.out_w, p.w);
    for (uint half_of = 0; half_of < 2; ++half_of) {
        uint channel = index % (p.cs / 8) * 8 + 4 * half_of;
        float4 value = resized(x + block.z * p.h * p.w * p.cs + channel, p, row, column);
        store4(out + (block.z * pixels + pixel) * p.cs + channel, value);
    }
}

template <typename T>
[[kernel]] void resize_add(device const T* x [[buffer(0)]], device const T* base [[buffer(1)]],
                           device T* out [[buffer(2)]],
                           constant ResizeParams& p [[buffer(3)]], uint3 block [[threadgroup_position_in_grid]],
                           uint3 tid [[thread_position_in_threadgroup]]) {
    uint index = 256 * block.x + tid.x, pixels = p.out_h * p.out_w, pixel = index / (p.cs / 8);
    if (pixel >= pixels) return;
    Tap row = tap_of(p.ratio_y, pixel / p.out_w, p.h), column = tap_of(p.ratio_x, pixel % p.out_w, p.w);
    for (uint half_of = 0; half_of < 2; ++half_of) {
        uint channel = index % (p.cs / 8) * 8 + 4 * half_of, at = (block.z * pixels + pixel) * p.cs + channel;
        float4 value = resized(x + block.z * p.h * p.w * p.cs + channel, p, row, column);
        store4(out + at, value + load4(base + at));
    }
}

KERNEL_ENTRY(resize_f32, resize<float>);
KERNEL_ENTRY(resize_f16, resize<half>);
KERNEL_ENTRY(resize_add_f32, resize_add<float>);
KERNEL_ENTRY(resize_add_f16, resize_add<half>);
