// conv: 3x3 and 1x1 convolutions at stride 1 and 2 as an implicit matrix product: prologue, products, epilogue in one
//   out = activation(bias + sum over taps and channels of weight * in + residual), in = ReLU?(x * scale + shift), zero
//   outside the map
//   in [n, h, w, in_cs] T, weight [kernel*kernel*in_cs, out_cs] T (tap by tap),
//   residual and out [n, out_h, out_w, out_cs] T,
//   bias [out_cs], scale, shift [in_cs] f32; arguments that no flag enables are not read    definition: scalar.rs
//   launch: grid = (ceil(out_h*out_w/64), ceil(out_cs/64), n), block = 256    twin: conv.metal
//   bound: multiply-adds in float, kernel*kernel*in_c*out_c per output pixel; the reference for conv_mma, and the kernel
//   of the exact mode
#include "conv.cuh"

template <typename T>
__device__ __forceinline__ void conv(const T* __restrict__ in, const T* __restrict__ weight,
                                     const float* __restrict__ bias,
                                     const float* __restrict__ scale, const float* __restrict__ shift,
                                     const T* __restrict__ residual, T* __restrict__ out, ConvParams p) {
    constexpr u32 PIXELS = 64, CHANNELS = 64, STEP = 2 * PIECE; // per block; STEP: rows of the weights at a time
    SHARED(float, input, [STEP][PIXELS]);
    SHARED(float, factors, [STEP][CHANNELS]);
    const u32 thread = threadIdx.x, pixels = p.out_h * p.out_w, rows = p.window * p.window * p.in_cs;
    const u32 first_pixel = blockIdx.x * PIXELS, first_channel = blockIdx.y * CHANNELS;
    in += (size_t)blockIdx.z * p.h * p.w * p.in_cs;
    // A thread fetches one piece of a pixel's inputs (only half of the threads do) and four weights; it computes 4
    // pixels by 4 channels of the output.
    const u32 fetched_pixel = thread % PIXELS, fetched_piece = thread / PIXELS * PIECE;
    const u32 fetched_row = thread / 16, fetched_channel = thread % 16 * 4;
    const u32 row = thread / 16 * 4, column = thread % 16 * 4;
    const Window window(p, first_pixel + fetched_pixel);
    float sum[4][4] = {};
    for (u32 first = 0; first < rows; first += STEP) {
        if (fetched_piece < STEP) {
            float v[PIECE] = {};
            fetch(v, in, scale, shift, window, first + fetched_piece, rows, p);
#pragma unroll
            for (u32 i = 0; i < PIECE; i++) input[fetched_piece + i][fetched_pixel] = v[i];
        }
        float w[4] = {};
        if (first + fetched_row < rows && first_channel + fetched_channel < p.out_cs) {
            load(weight + (size_t)(first + fetched_row) * p.out_cs + first_channel + fetched_channel, w);
        }
        store(&factors[fetched_row][fetched_channel], w);
        __syncthreads(); // inputs and weights are stored
#pragma unroll
        for (u32 k = 0; k < STEP; k++) {
            float v[4];
            load(&input[k][row], v);
            load(&factors[k][column], w);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) sum[i][j] += v[i] * w[j];
            }
        }
        __syncthreads(); // inputs and weights have been used
    }
    if (first_channel + column >= p.out_cs) return;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 pixel = first_pixel + row + i;
        if (pixel < pixels) finish(sum[i], pixel, first_channel + column, bias, residual, out, p);
    }
}

extern "C" __global__ void __launch_bounds__(256) conv_f32(
    const float* in, const float* weight, const float* bias, const float* scale, const float* shift,
    const float* residual, float* out, ConvParams p) {
    conv(in, weight, bias, scale, shift, residual, out, p);
}
extern "C" __global__ void __launch_bounds__(256) conv_f16(
    const half* in, const half* weight, const float* bias, const float* scale, const float* shift,
    const half* residual, half* out, ConvParams p) {
    conv(in, weight, bias, scale, shift, residual, out, p);
}
