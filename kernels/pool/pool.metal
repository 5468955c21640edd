// avg_pool: means of windows, the zero border counts.    twin: pool.cu    definition: scalar.rs
//   x [n, h, w, cs] T, out [n, out_h, out_w, cs] T
//   launch: grid = (ceil(out_h * out_w * cs / 8 / 256), 1, n), block = 256, one thread per eight channels of a pixel
//   bound: the caches; a pixel lies in about (window / stride)^2 windows
// global_avg_pool: the mean of each channel.
//   x [n, h, w, cs] T, out [n, cs] T
//   launch: grid = (ceil(cs / 32), 1, n), block = 256 = 8 parts of the pixels by 32 channels
//   bound: memory, x once
// max_pool_to: adaptive maximum of scale * x + shift; window i is floor(i * len / side) .. ceil((i + 1) * len / side).
//   x [n, h, w, cs] T, scale and shift [cs] f32, out [n, side, side, cs] T
//   launch: as avg_pool    bound: memory, x once

struct AvgPoolParams {
    uint n, cs, h, w, out_h, out_w, window, stride, padding;
};

template <typename T>
[[kernel]] void avg_pool(device const T* x [[buffer(0)]], device T* out [[buffer(1)]],
                         constant AvgPoolParams& p [[buffer(2)]],
                         uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    uint index = 256 * block.x + tid.x, pixels = p.out_h * p.out_w, pixel = index / (p.cs / 8);
    if (pixel >= pixels) return;
    int top = int(pixel / p.out_w * p.stride) - int(p.padding), left = int(pixel % p.out_w * p.stride) - int(p.padding);
    uint y0 = uint(max(top, 0)), y1 = min(uint(top + int(p.window)), p.h);
    uint x0 = uint(max(left, 0)), x1 = min(uint(left + int(p.window)), p.w);
    float share = 1.0f / float(p.window * p.window);
    for (uint half_of = 0; half_of < 2; ++half_of) {
        uint channel = index % (p.cs / 8) * 8 + 4 * half_of;
        float4 sum = float4(0.0f);
        for (uint row = y0; row < y1; ++row) {
            for (uint column = x0; column < x1; ++column) {
                sum += load4(x + ((block.z * p.h + row) * p.w + column) * p.cs + channel);
            }
        }
        store4(out + (block.z * pixels + pixel) * p.cs + channel, sum * share);
    }
}

struct GlobalAvgPoolParams {
    uint n, cs, h, w;
};

template <typename T>
[[kernel]] void global_avg_pool(device const T* x [[buffer(0)]], device T* out [[buffer(1)]],
                                constant GlobalAvgPoolParams& p [[buffer(2)]],
                                uint3 block [[threadgroup_position_in_grid]],
                                uint3 tid [[thread_position_in_threadgroup]]) {
    SHARED(float, sums, [8][32]);
    uint lane = tid.x % 32, part = tid.x / 32, channel = 32 * block.x + lane, pixels = p.h * p.w;
    float sum = 0.0f;
    if (channel < p.cs) {
        for (uint pixel = part; pixel < pixels; pixel += 8) {
            sum += float(x[(block.z * pixels + pixel) * p.cs + channel]);
        }
    }
    sums[part][lane] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (part == 0 && channel < p.cs) {
        for (uint other = 1; other < 8; ++other) sum += sums[other][lane];
        out[block.z * p.cs + channel] = T(sum / float(pixels));
    }
}

struct MaxPoolToParams {
    uint n, cs, h, w, side;
};

template <typename T>
[[kernel]] void max_pool_to(device const T* x [[buffer(0)]], device const float* scale [[buffer(1)]],
                            device const float* shift [[buffer(2)]], device T* out [[buffer(3)]],
                            constant MaxPoolToParams& p [[buffer(4)]], uint3 block [[threadgroup_position_in_grid]],
                            uint3 tid [[thread_position_in_threadgroup]]) {
    uint index = 256 * block.x + tid.x, pixels = p.side * p.side, pixel = index / (p.cs / 8);
    if (pixel >= pixels) return;
    uint row = pixel / p.side, column = pixel % p.side;
    uint y0 = row * p.h / p.side, y1 = ((row + 1) * p.h + p.side - 1) / p.side;
    uint x0 = column * p.w / p.side, x1 = ((column + 1) * p.w + p.side - 1) / p.side;
    for (uint half_of = 0; half_of < 2; ++half_of) {
        uint channel = index % (p.cs / 8) * 8 + 4 * half_of;
        float4 factor = load4(scale + channel), summand = load4(shift + channel), greatest = float4(-FLT_MAX);
        for (uint y = y0; y < y1; ++y) {
            for (uint at = x0; at < x1; ++at) {
                float4 value = load4(x + ((block.z * p.h + y) * p.w + at) * p.cs + channel);
                greatest = max(greatest, fma(value, factor, summand));
            }
        }
        store4(out + (block.z * pixels + pixel) * p.cs + channel, greatest);
    }
}

KERNEL_ENTRY(avg_pool_f32, avg_pool<float>);
KERNEL_ENTRY(avg_pool_f16, avg_pool<half>);
KERNEL_ENTRY(global_avg_pool_f32, global_avg_pool<float>);
KERNEL_ENTRY(global_avg_pool_f16, global_avg_pool<half>);
KERNEL_ENTRY(max_pool_to_f32, max_pool_to<float>);
KERNEL_ENTRY(max_pool_to_f16, max_pool_to<half>);
