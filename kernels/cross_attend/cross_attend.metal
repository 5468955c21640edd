// cross_attend: x + softmax(norm(x) . keys / side) . values, scores never stored.    twin: cross_attend.cu
//   definition: scalar.rs
//   x and out [n, h * w, cs] T, scale and shift [cs] f32, kv [n, side * side, kv_cs] T: channels 0 .. c are key j,
//   channels c .. 2c its value
//   c at most 256; factor = 1 / side
//   launch: grid = (ceil(h * w / 16), 1, n), block = 256: 16 pixels by 16 lanes; a lane scores one key of a tile of 16,
//   and then adds every 16th channel of their values
//   bound: arithmetic, 4 * c * side^2 operations per pixel; the softmax is computed online, so a tile's scores stay in
//   the registers of its lanes

struct CrossAttendParams {
    uint n, h, w, c, cs, kv_cs, side;
    float factor;
};

// Reductions over the sixteen lanes of a pixel, which are neighbours in a simdgroup.
inline float sixteen_max(float value) {
    for (ushort step = 8; step > 0; step /= 2) value = max(value, simd_shuffle_xor(value, step));
    return value;
}

inline float sixteen_sum(float value) {
    for (ushort step = 8; step > 0; step /= 2) value += simd_shuffle_xor(value, step);
    return value;
}

template <typename T>
[[kernel, max_total_threads_per_threadgroup(256)]] void
cross_attend(device const T* x [[buffer(0)]], device const float* scale [[buffer(1)]],
             device const float* shift [[buffer(2)]], device const T* kv [[buffer(3)]], device T* out [[buffer(4)]],
             constant CrossAttendParams& p [[buffer(5)]], uint3 block [[threadgroup_position_in_grid]],
             uint3 tid [[thread_position_in_threadgroup]]) {
    SHARED(float, queries, [16][260]);
    SHARED(float, keys, [16][65]); // 64 channels of a tile's keys
    SHARED(float, weights, [16][16]);
    uint pixels = p.h * p.w, count = p.side * p.side, own = tid.x / 16, lane = tid.x % 16, pixel = 16 * block.x + own;
    bool there = pixel < pixels;
    uint at = (block.z * pixels + pixel) * p.cs;
    for (uint channel = lane; channel < p.c; channel += 16) {
        queries[own][channel] = there ? p.factor * fma(float(x[at + channel]), scale[channel], shift[channel]) : 0.0f;
    }

    float sums[16], top = -FLT_MAX, total = 0.0f;
    for (uint i = 0; i < 16; ++i) sums[i] = 0.0f;
    for (uint first = 0; first < count; first += 16) {
        float score = 0.0f;
        for (uint begin = 0; begin < p.c; begin += 64) {
            threadgroup_barrier(mem_flags::mem_threadgroup); // the queries are stored; the last keys have been used
            for (uint i = tid.x; i < 16 * 64; i += 256) {
                uint key = first + i / 64, channel = begin + i % 64;
                bool exists = key < count && channel < p.c;
                keys[i / 64][i % 64] = exists ? float(kv[(block.z * count + key) * p.kv_cs + channel]) : 0.0f;
            }
            threadgroup_barrier(mem_flags::mem_threadgroup); // the keys are stored
            uint width = min(64u, p.c - begin);
            for (uint i = 0; i < width; ++i) score = fma(queries[own][begin + i], keys[lane][i], score);
        }
        if (first + lane >= count) score = -FLT_MAX;
        float higher = max(top, sixteen_max(score)), rescale = exp(top - higher), weight = exp(score - higher);
        total = total * rescale + sixteen_sum(weight);
        top = higher;
        weights[own][lane] = weight;
        // the weights are stored; the next ones are written after the barriers above
        simdgroup_barrier(mem_flags::mem_threadgroup);
        uint tile = min(16u, count - first);
        for (uint i = 0; i < 16; ++i) {
            uint channel = lane + 16 * i;
            if (channel >= p.c) break;
            float sum = sums[i] * rescale;
            for (uint j = 0; j < tile; ++j) {
                sum = fma(weights[own][j], float(kv[(block.z * count + first + j) * p.kv_cs + p.c + channel]), sum);
            }
            sums[i] = sum;
        }
    }

    for (uint i = 0; there && i < 16; ++i) {
        uint channel = lane + 16 * i;
        if (channel >= p.cs) break;
        out[at + channel] = T(channel < p.c ? sums[i] / total + float(x[at + channel]) : 0.0f);
    }
}

KERNEL_ENTRY(cross_attend_f32, cross_attend<float>);
KERNEL_ENTRY(cross_attend_f16, cross_attend<half>);
