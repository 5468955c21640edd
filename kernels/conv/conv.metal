// conv: 1x1 or 3x3, stride 1 or 2, as an implicit GEMM on multiply-adds.    twin: conv.cu    definition: scalar.rs
//   x [n, h, w, in_cs] T, weight [window * window * in_cs, out_cs] T, bias [out_cs], scale and shift [in_cs] f32,
//   residual and out [n, out_h, out_w, out_cs] T
//   out = activation(bias + sum of weight * max?(x * scale + shift) + residual); the zero padding comes after the
//   prologue
//   flags: 1 prologue, 2 its ReLU, 4 residual, 8 ReLU, 16 GELU
//   launch: grid = (ceil(out_h * out_w / 64), ceil(out_cs / 64), n), block = 256; a block computes 64 pixels by 64
//   channels, a thread 4 by 4
//   bound: arithmetic; a slab of 16 input channels goes through threadgroup memory, where each number is used 64 times

struct ConvParams {
    uint n, h, w, in_c, in_cs, out_h, out_w, out_c, out_cs, window, stride, flags;
};

// x / 2 * (1 + erf(x / sqrt 2)), as in `simd/math.rs`: erfc is 7.1.26 of Abramowitz and Stegun.
inline float gelu(float x) {
    float t = fabs(x), k = 1.0f / fma(t, 0.3275911f * 0.70710678f, 1.0f);
    float p = fma(fma(fma(fma(1.0614054f, k, -1.453152f), k, 1.4214137f), k, -0.28449674f), k, 0.2548296f);
    return fma(-0.5f * t, p * k * exp(-0.5f * t * t), max(x, 0.0f));
}

// Applies the activation to a sum.
inline float activated(float sum, uint flags) {
    if (flags & 8) return max(sum, 0.0f);
    return flags & 16 ? gelu(sum) : sum;
}

inline float4 activated(float4 sum, uint flags) {
    return float4(activated(sum[0], flags), activated(sum[1], flags), activated(sum[2], flags),
                  activated(sum[3], flags));
}

// Four input channels after the prologue; `scale` and `shift` begin at these channels.
inline float4 prepared(float4 value, device const float* scale, device const float* shift, uint flags) {
    if (flags & 1) value = fma(value, load4(scale), load4(shift));
    return flags & 2 ? max(value, float4(0.0f)) : value;
}

template <typename T>
[[kernel, max_total_threads_per_threadgroup(256)]] void
conv(device const T* x [[buffer(0)]], device const T* weight [[buffer(1)]], device const float* bias [[buffer(2)]],
     device const float* scale [[buffer(3)]], device const float* shift [[buffer(4)]],
     device const T* residual [[buffer(5)]], device T* out [[buffer(6)]], constant ConvParams& p [[buffer(7)]],
     uint3 block [[threadgroup_position_in_grid]], uint3 tid [[thread_position_in_threadgroup]]) {
    SHARED(float, inputs, [16][68]); // channel by pixel; rows of 68 spread neighbouring writes over the banks
    SHARED(float, weights, [16][64]);
    uint pixels = p.out_h * p.out_w;

    // What this thread loads: four channels of a pixel, and one input channel's weights for four outputs.
    uint pixel_at = tid.x / 4, channel_at = tid.x % 4 * 4, row_at = tid.x / 16, column_at = tid.x % 16 * 4;
    uint pixel = 64 * block.x + pixel_at, column = 64 * block.y + column_at;
    int top = int(pixel / p.out_w * p.stride) - int(p.window / 2);
    int left = int(pixel % p.out_w * p.stride) - int(p.window / 2);

    float4 sums[4] = {float4(0.0f), float4(0.0f), float4(0.0f), float4(0.0f)};
    for (uint tap = 0; tap < p.window * p.window; ++tap) {
        int y = top + int(tap / p.window), at = left + int(tap % p.window);
        bool inside = pixel < pixels && y >= 0 && y < int(p.h) && at >= 0 && at < int(p.w);
        for (uint first = 0; first < p.in_cs; first += 16) {
            uint channel = first + channel_at, input = first + row_at;
            float4 value = float4(0.0f), factors = float4(0.0f);
            if (inside && channel < p.in_cs) {
                value = load4(x + ((block.z * p.h + uint(y)) * p.w + uint(at)) * p.in_cs + channel);
                value = prepared(value, scale + channel, shift + channel, p.flags);
            }
            if (input < p.in_cs && column < p.out_cs) {
                factors = load4(weight + (tap * p.in_cs + input) * p.out_cs + column);
            }
            for (uint i = 0; i < 4; ++i) {
                inputs[channel_at + i][pixel_at] = value[i];
                weights[row_at][column_at + i] = factors[i];
            }
            threadgroup_barrier(mem_flags::mem_threadgroup); // the slab is loaded
            uint depth = min(16u, p.in_cs - first);
            for (uint k = 0; k < depth; ++k) {
                threadgroup const float* row = &weights[k][column_at];
                float4 factor = float4(row[0], row[1], row[2], row[3]);
                for (uint i = 0; i < 4; ++i) sums[i] = fma(float4(inputs[k][4 * row_at + i]), factor, sums[i]);
            }
            threadgroup_barrier(mem_flags::mem_threadgroup); // nobody reads the slab any longer
        }
    }

    for (uint i = 0; i < 4; ++i) {
        uint output = 64 * block.x + 4 * row_at + i;
        if (output >= pixels || column >= p.out_cs) continue;
        uint to = (block.z * pixels + output) * p.out_cs + column;
        float4 sum = sums[i] + load4(bias + column);
        if (p.flags & 4) sum += load4(residual + to);
        store4(out + to, activated(sum, p.flags));
    }
}

KERNEL_ENTRY(conv_f32, conv<float>);
KERNEL_ENTRY(conv_f16, conv<half>);
