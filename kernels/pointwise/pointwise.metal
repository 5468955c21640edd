// relu: max(x, 0).    add: a + b.    twin: pointwise.cu    definition: scalar.rs
//   x, a, b, out [len] T, len a multiple of 8    launch: grid = ceil(len / 8 / 256), block = 256
//   bound: memory, each number once

struct PointwiseParams {
    uint len;
};

template <typename T>
[[kernel]] void relu(device const T* x [[buffer(0)]], device T* out [[buffer(1)]],
                     constant PointwiseParams& p [[buffer(2)]],
                     uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    uint first = 8 * (256 * block.x + tid.x);
    if (first >= p.len) return;
    store4(out + first, max(load4(x + first), float4(0.0f)));
    store4(out + first + 4, max(load4(x + first + 4), float4(0.0f)));
}

template <typename T>
[[kernel]] void add(device const T* a [[buffer(0)]], device const T* b [[buffer(1)]], device T* out [[buffer(2)]],
                    constant PointwiseParams& p [[buffer(3)]], uint3 block [[threadgroup_position_in_grid]],
                    uint3 tid [[thread_position_in_threadgroup]]) {
    uint first = 8 * (256 * block.x + tid.x);
    if (first >= p.len) return;
    store4(out + first, load4(a + first) + load4(b + first));
    store4(out + first + 4, load4(a + first + 4) + load4(b + first + 4));
}

KERNEL_ENTRY(relu_f32, relu<float>);
KERNEL_ENTRY(relu_f16, relu<half>);
KERNEL_ENTRY(add_f32, add<float>);
KERNEL_ENTRY(add_f16, add<half>);
