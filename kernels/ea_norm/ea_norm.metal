// ea_stats: per channel and split of the pixels, the largest logit and the sum of e^(logit - largest).
//   x [n, pixels, cs] T, stats [n, splits, cs, 2] f32; pixel i belongs to split i % splits
//   launch: grid = (ceil(cs / 32), splits, n), block = 256 = 8 parts of the split by 32 channels
//   bound: memory, x once
// ea_norm: softmax over pixels, then L1 over the channels of a group, in place.    twin: ea_norm.cu
//   definition: scalar.rs
//   stats as above, x [n, pixels, cs] T, a group at most 1024 channels
//   launch: grid = (ceil(pixels / 64), groups, n), block = 256, one pixel per simdgroup at a time
//   bound: memory, x read twice and written once

struct EaStatsParams {
    uint n, c, cs, pixels, splits;
};

template <typename T>
[[kernel]] void ea_stats(device const T* x [[buffer(0)]], device float* stats [[buffer(1)]],
                         constant EaStatsParams& p [[buffer(2)]],
                         uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    SHARED(float, tops, [8][32]);
    SHARED(float, sums, [8][32]);
    uint lane = tid.x % 32, part = tid.x / 32, channel = 32 * block.x + lane;
    float top = -FLT_MAX, sum = 0.0f;
    if (channel < p.c) {
        for (uint pixel = block.y + part * p.splits; pixel < p.pixels; pixel += 8 * p.splits) {
            float value = float(x[(block.z * p.pixels + pixel) * p.cs + channel]), higher = max(top, value);
            sum = sum * exp(top - higher) + exp(value - higher);
            top = higher;
        }
    }
    tops[part][lane] = top;
    sums[part][lane] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (part == 0 && channel < p.c) {
        for (uint other = 1; other < 8; ++other) top = max(top, tops[other][lane]);
        // A part without pixels has the lowest number as its top, so it contributes nothing.
        sum = 0.0f;
        for (uint other = 0; other < 8; ++other) sum += sums[other][lane] * exp(tops[other][lane] - top);
        device float* to = stats + 2 * ((block.z * p.splits + block.y) * p.cs + channel);
        to[0] = top;
        to[1] = sum;
    }
}

struct EaNormParams {
    uint n, c, cs, pixels, groups, splits;
};

template <typename T>
[[kernel]] void ea_norm(device const float* stats [[buffer(0)]], device T* x [[buffer(1)]],
                        constant EaNormParams& p [[buffer(2)]],
                        uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]],
                        uint lane [[thread_index_in_simdgroup]], uint lanes_at [[simdgroup_index_in_threadgroup]]) {
    SHARED(float, tops, [1024]);
    SHARED(float, shares, [1024]);
    uint group = p.c / p.groups, first = block.y * group;
    for (uint i = tid.x; i < group; i += 256) {
        device const float* of = stats + 2 * (block.z * p.splits * p.cs + first + i);
        float top = of[0], sum = 0.0f;
        for (uint split = 1; split < p.splits; ++split) top = max(top, of[2 * split * p.cs]);
        for (uint split = 0; split < p.splits; ++split) {
            sum += of[2 * split * p.cs + 1] * exp(of[2 * split * p.cs] - top);
        }
        tops[i] = top;
        shares[i] = 1.0f / sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint j = lanes_at; j < 64; j += 8) {
        uint pixel = 64 * block.x + j;
        if (pixel >= p.pixels) break; // all lanes of the simdgroup
        device T* at = x + (block.z * p.pixels + pixel) * p.cs + first;
        float sum = 0.0f;
        for (uint i = lane; i < group; i += 32) sum += exp(float(at[i]) - tops[i]) * shares[i];
        sum = simd_sum(sum) + 1e-6f;
        for (uint i = lane; i < group; i += 32) at[i] = T(exp(float(at[i]) - tops[i]) * shares[i] / sum);
    }
}

KERNEL_ENTRY(ea_stats_f32, ea_stats<float>);
KERNEL_ENTRY(ea_stats_f16, ea_stats<half>);
KERNEL_ENTRY(ea_norm_f32, ea_norm<float>);
KERNEL_ENTRY(ea_norm_f16, ea_norm<half>);
