// conv_mma_*: computes the same as conv.cu, on tensor cores    definition: conv.cu, whose table these pass too
//   arguments of conv.cu, T half    bound: tensor cores; for few channels memory, in and out once
//   launch: grid = (ceil(out_h*out_w/PIXELS), ceil(out_cs/CHANNELS), n), block = 32 * WARPS; the name gives PIXELS x
//   CHANNELS
//
// A block multiplies PIXELS rows of inputs, gathered as an implicit im2col, by CHANNELS columns of weights, STEP rows
// at a time. A warp has 32 by 32 of the sums. There are three buffers in shared memory: while one step is multiplied,
// the step after the next is being copied.
#include "mma.cuh"
#include "conv.cuh"

template <u32 WARP_ROWS, u32 WARP_COLUMNS> struct Block {
    static constexpr u32 STEP = 32, STAGES = 3, PIECES = STEP / PIECE;
    static constexpr u32 THREADS = 32 * WARP_ROWS * WARP_COLUMNS, PIXELS = 32 * WARP_ROWS, CHANNELS = 32 * WARP_COLUMNS;
    // Rows in shared memory are 16 bytes longer than needed, so that the 8 rows of a matrix lie in different banks.
    static constexpr u32 INPUT_ROW = STEP + PIECE, WEIGHT_ROW = CHANNELS + PIECE, SUM_ROW = CHANNELS + 4;
    static constexpr u32 STAGE = PIXELS * INPUT_ROW + STEP * WEIGHT_ROW; // in halves
    static constexpr u32 INPUTS = PIXELS * PIECES / THREADS;             // pieces that a thread fetches
    static constexpr u32 WEIGHTS = STEP * CHANNELS / PIECE / THREADS;
    static_assert(PIXELS * SUM_ROW * 2 <= STAGE * STAGES, "the sums take the place of inputs and weights");
};

template <u32 WARP_ROWS, u32 WARP_COLUMNS>
__device__ __forceinline__ void conv_mma(const half* __restrict__ in, const half* __restrict__ weight,
                                         const float* __restrict__ bias,
                                         const float* __restrict__ scale, const float* __restrict__ shift,
                                         const half* __restrict__ residual, half* __restrict__ out,
                                         const ConvParams& p) {
    using B = Block<WARP_ROWS, WARP_COLUMNS>;
    constexpr u32 STEP = B::STEP, STAGES = B::STAGES, PIECES = B::PIECES;
    SHARED(half, tile, [STAGES * B::STAGE]);
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const u32 pixels = p.out_h * p.out_w, rows = p.window * p.window * p.in_cs, steps = ceil_div(rows, STEP);
    const u32 first_pixel = blockIdx.x * B::PIXELS, first_channel = blockIdx.y * B::CHANNELS;
    const bool normed = p.flags & 1;
    in += (size_t)blockIdx.z * p.h * p.w * p.in_cs;

    // What this thread fetches: the same piece of the same pixels in each step.
    const u32 piece = thread % PIECES * PIECE, pixel = thread / PIECES;
    int y[B::INPUTS], x[B::INPUTS];
#pragma unroll
    for (u32 i = 0; i < B::INPUTS; i++) {
        const Window window(p, first_pixel + pixel + i * (B::THREADS / PIECES));
        y[i] = window.y, x[i] = window.x;
    }
    const half* from[B::INPUTS];
    u32 channel = 0;
    // Finds the inputs of a step; null if they are zeros.
    const auto find = [&](u32 step) {
        const u32 row = step * STEP + piece, tap = row / p.in_cs;
        channel = row - tap * p.in_cs;
#pragma unroll
        for (u32 i = 0; i < B::INPUTS; i++) {
            const int at_y = y[i] + (int)(tap / p.window), at_x = x[i] + (int)(tap % p.window);
            const bool inside = row < rows && at_y >= 0 && at_y < (int)p.h && at_x >= 0 && at_x < (int)p.w;
            from[i] = inside ? in + ((size_t)at_y * p.w + at_x) * p.in_cs + channel : nullptr;
        }
    };
    const auto input_place = [&](u32 step, u32 i) {
        return tile + step % STAGES * B::STAGE + (pixel + i * (B::THREADS / PIECES)) * B::INPUT_ROW + piece;
    };
    Copies copies;
    const auto begin_inputs = [&](u32 step) {
#pragma unroll
        for (u32 i = 0; i < B::INPUTS; i++) {
            copies.begin(input_place(step, i), from[i] == nullptr ? in : from[i], from[i] != nullptr);
        }
    };
    const auto begin_weights = [&](u32 step) {
#pragma unroll
        for (u32 i = 0; i < B::WEIGHTS; i++) {
            const u32 k = thread * PIECE / B::CHANNELS + i * (B::THREADS * PIECE / B::CHANNELS),
                c = thread * PIECE % B::CHANNELS;
            const bool there = step * STEP + k < rows && first_channel + c < p.out_cs;
            half* const to = tile + step % STAGES * B::STAGE + B::PIXELS * B::INPUT_ROW + k * B::WEIGHT_ROW + c;
            copies.begin(to, there ? weight + (size_t)(step * STEP + k) * p.out_cs + first_channel + c : weight, there);
        }
    };
    // Inputs with a prologue go through registers: `take` before a step is multiplied, `put` after it.
    float taken[B::INPUTS][PIECE];
    const auto take = [&]() {
#pragma unroll
        for (u32 i = 0; i < B::INPUTS; i++) {
            if (from[i] != nullptr) load(from[i], taken[i]);
        }
    };
    const auto put = [&](u32 step) {
#pragma unroll
        for (u32 i = 0; i < B::INPUTS; i++) {
            if (from[i] != nullptr) {
                prologue(taken[i], scale, shift, channel, p.flags);
            } else { // the padding's zeros are applied after the norm
#pragma unroll
                for (u32 j = 0; j < PIECE; j++) taken[i][j] = 0.0f;
            }
            store(input_place(step, i), taken[i]);
        }
    };

    for (u32 step = 0; step < STAGES - 1; step++) {
        if (step < steps) {
            find(step);
            begin_weights(step);
            if (normed) take(), put(step);
            else begin_inputs(step);
        }
        copies.close(); // an empty group if there is no such step, so that groups count steps
    }
    const u32 warp_row = warp / WARP_COLUMNS * 32, warp_column = warp % WARP_COLUMNS * 32;
    float sum[2][4][4] = {}; // [16 rows][8 columns][four per lane]
    for (u32 step = 0; step < steps; step++) {
        const u32 next = step + STAGES - 1;
        copies.wait<STAGES - 2>();
        __syncthreads(); // this step's inputs and weights are loaded, and the last one's have been used
        if (next < steps) {
            find(next);
            begin_weights(next);
            if (normed) take();
            else begin_inputs(next);
        }
        copies.close();
        const half* const inputs = tile + step % STAGES * B::STAGE;
        const half* const weights = inputs + B::PIXELS * B::INPUT_ROW;
#pragma unroll
        for (u32 k = 0; k < STEP; k += 16) {
            u32 a[2][4], b[2][4];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                load_matrices(a[i], inputs + (warp_row + i * 16 + lane % 16) * B::INPUT_ROW + k + lane / 16 * 8);
                load_transposed(b[i], weights + (k + lane % 16) * B::WEIGHT_ROW + warp_column + i * 16 + lane / 16 * 8);
            }
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) multiply_add(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
        if (normed && next < steps) put(next);
    }

    // Goes through shared memory, so that neighbouring threads store neighbouring pieces.
    copies.wait<0>();
    __syncthreads(); // the last step's inputs and weights have been used
    float* const sums = reinterpret_cast<float*>(tile);
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            float* const at = sums + (warp_row + i * 16 + lane / 4) * B::SUM_ROW + warp_column + j * 8 + lane % 4 * 2;
            at[0] = sum[i][j][0], at[1] = sum[i][j][1];
            at[8 * B::SUM_ROW] = sum[i][j][2], at[8 * B::SUM_ROW + 1] = sum[i][j][3];
        }
    }
    __syncthreads(); // the sums are stored
    for (u32 i = thread; i < B::PIXELS * B::CHANNELS / PIECE; i += B::THREADS) {
        const u32 row = i / (B::CHANNELS / PIECE), column = i % (B::CHANNELS / PIECE) * PIECE;
        if (first_pixel + row >= pixels || first_channel + column >= p.out_cs) continue;
        float v[PIECE];
        load(sums + row * B::SUM_ROW + column, v);
        finish(v, first_pixel + row, first_channel + column, bias, residual, out, p);
    }
}

extern "C" __global__ void __launch_bounds__(128) conv_mma_64x64_f16(
    const half* in, const half* weight, const float* bias, const float* scale, const float* shift,
    const half* residual, half* out, ConvParams p) {
    conv_mma<2, 2>(in, weight, bias, scale, shift, residual, out, p);
}
extern "C" __global__ void __launch_bounds__(128) conv_mma_128x32_f16(
    const half* in, const half* weight, const float* bias, const float* scale, const float* shift,
    const half* residual, half* out, ConvParams p) {
    conv_mma<4, 1>(in, weight, bias, scale, shift, residual, out, p);
}
extern "C" __global__ void __launch_bounds__(256) conv_mma_128x64_f16(
    const half* in, const half* weight, const float* bias, const float* scale, const float* shift,
    const half* residual, half* out, ConvParams p) {
    conv_mma<4, 2>(in, weight, bias, scale, shift, residual, out, p);
}
