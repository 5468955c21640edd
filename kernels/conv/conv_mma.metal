// conv_mma: conv on matrix units, with the arguments, layout and flags of conv.metal, whose functions it uses.
//   launch: grid = (ceil(out_h * out_w / PIXELS), ceil(out_cs / CHANNELS), n), block = 256: ROWS by COLUMNS simdgroups,
//   each 16 pixels by 32 channels in eight 8x8 sums
//   conv_mma: 64 pixels by 64 channels    conv_mma_narrow: 128 by 32, for maps with few channels
//   bound: arithmetic; products of T, sums f32. A slab of 16 input channels goes through threadgroup memory

template <typename T, uint ROWS, uint COLUMNS>
[[kernel, max_total_threads_per_threadgroup(256)]] void
conv_mma(device const T* x [[buffer(0)]], device const T* weight [[buffer(1)]], device const float* bias [[buffer(2)]],
         device const float* scale [[buffer(3)]], device const float* shift [[buffer(4)]],
         device const T* residual [[buffer(5)]],
         device T* out [[buffer(6)]], constant ConvParams& p [[buffer(7)]],
         uint3 block [[threadgroup_position_in_grid]],
         uint3 tid [[thread_position_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
         uint lanes_at [[simdgroup_index_in_threadgroup]]) {
    SHARED(T, inputs, [16 * ROWS][20]); // pixel by channel; rows of 20 spread neighbours over the banks
    SHARED(T, weights, [16][32 * COLUMNS + 4]);
    SHARED(float, finished, [8][8][8]); // one 8x8 sum per simdgroup, about to be stored
    uint pixels = p.out_h * p.out_w, first_pixel = 16 * ROWS * block.x, first_channel = 32 * COLUMNS * block.y;
    uint row_at = lanes_at / COLUMNS * 16, column_at = lanes_at % COLUMNS * 32;

    simdgroup_matrix<float, 8, 8> sums[2][4];
    for (uint i = 0; i < 2; ++i) {
        for (uint j = 0; j < 4; ++j) sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    for (uint tap = 0; tap < p.window * p.window; ++tap) {
        for (uint first = 0; first < p.in_cs; first += 16) {
            // Four channels of a pixel at a time, and one input channel's weights for four outputs.
            for (uint i = tid.x; i < 16 * ROWS * 4; i += 256) {
                uint pixel = first_pixel + i / 4, channel = first + i % 4 * 4;
                int y = int(pixel / p.out_w * p.stride + tap / p.window) - int(p.window / 2);
                int at = int(pixel % p.out_w * p.stride + tap % p.window) - int(p.window / 2);
                float4 value = float4(0.0f);
                if (pixel < pixels && y >= 0 && y < int(p.h) && at >= 0 && at < int(p.w) && channel < p.in_cs) {
                    value = load4(x + ((block.z * p.h + uint(y)) * p.w + uint(at)) * p.in_cs + channel);
                    value = prepared(value, scale + channel, shift + channel, p.flags);
                }
                for (uint k = 0; k < 4; ++k) inputs[i / 4][i % 4 * 4 + k] = T(value[k]);
            }
            for (uint i = tid.x; i < 16 * 8 * COLUMNS; i += 256) {
                uint row = i / (8 * COLUMNS), column = i % (8 * COLUMNS) * 4, input = first + row;
                float4 factors = float4(0.0f);
                if (input < p.in_cs && first_channel + column < p.out_cs) {
                    factors = load4(weight + (tap * p.in_cs + input) * p.out_cs + first_channel + column);
                }
                for (uint k = 0; k < 4; ++k) weights[row][column + k] = T(factors[k]);
            }
            threadgroup_barrier(mem_flags::mem_threadgroup); // the slab is loaded
            for (uint k = 0; k < 16; k += 8) {
                simdgroup_matrix<T, 8, 8> left[2], right[4];
                for (uint i = 0; i < 2; ++i) simdgroup_load(left[i], &inputs[row_at + 8 * i][k], 20);
                for (uint j = 0; j < 4; ++j) simdgroup_load(right[j], &weights[k][column_at + 8 * j], 32 * COLUMNS + 4);
                for (uint i = 0; i < 2; ++i) {
                    for (uint j = 0; j < 4; ++j) {
                        simdgroup_multiply_accumulate(sums[i][j], left[i], right[j], sums[i][j]);
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup); // nobody reads the slab any longer
        }
    }

    for (uint i = 0; i < 2; ++i) {
        for (uint j = 0; j < 4; ++j) {
            simdgroup_store(sums[i][j], &finished[lanes_at][0][0], 8);
            simdgroup_barrier(mem_flags::mem_threadgroup); // the sum is stored
            uint pixel = first_pixel + row_at + 8 * i + lane / 4;
            uint channel = first_channel + column_at + 8 * j + lane % 4 * 2;
            if (pixel < pixels && channel < p.out_cs) {
                uint to = (block.z * pixels + pixel) * p.out_cs + channel;
                for (uint k = 0; k < 2; ++k) {
                    float sum = finished[lanes_at][lane / 4][lane % 4 * 2 + k] + bias[channel + k];
                    if (p.flags & 4) sum += float(residual[to + k]);
                    out[to + k] = T(activated(sum, p.flags));
                }
            }
            simdgroup_barrier(mem_flags::mem_threadgroup); // the next sum may overwrite it
        }
    }
}

KERNEL_ENTRY(conv_mma_f32, conv_mma<float, 4, 2>);
KERNEL_ENTRY(conv_mma_f16, conv_mma<half, 4, 2>);
KERNEL_ENTRY(conv_mma_narrow_f32, conv_mma<float, 8, 1>);
KERNEL_ENTRY(conv_mma_narrow_f16, conv_mma<half, 8, 1>);
