// cross_attend_mma_*: computes the same as cross_attend.cu, on tensor cores
//   definition: cross_attend.cu, whose table these pass too
//   arguments of cross_attend.cu, T half, c a multiple of 8 and at most CHANNELS, which the name gives
//   launch: grid = (ceil(h*w/64), 1, n), block = 128
//   bound: memory, x and out once; keys and values stay in the second-level cache
//
// A warp has 16 pixels. Their queries, their means and one chunk of their scores are in registers, and a chunk's
// weights go from the accumulators of one product into the operands of the next (FlashAttention-2: Dao,
// arXiv:2307.08691). Keys and values go through shared memory, KEYS at a time.
#include "cross_attend.cuh"
#include "mma.cuh"

__device__ __forceinline__ u32 pair(float first, float second) {
    const Halves<2> both = {{__float2half_rn(first), __float2half_rn(second)}};
    return *reinterpret_cast<const u32*>(&both);
}

// Maximum and sum over four neighbouring lanes, which share a row of the scores.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

template <u32 CHANNELS>
__device__ __forceinline__ void attend_mma(const half* __restrict__ x, const float* __restrict__ scale,
                                       const float* __restrict__ shift, const half* __restrict__ kv,
                                       half* __restrict__ out, const CrossAttendParams& p) {
    constexpr u32 WARPS = 4, THREADS = 32 * WARPS, PIXELS = 16 * WARPS, KEYS = 48;
    // Rows are 16 bytes longer than needed, so that the 8 rows of a matrix lie in different banks.
    constexpr u32 ROW = CHANNELS + PIECE, SUM_ROW = CHANNELS + 4, PIECES = CHANNELS / PIECE;
    SHARED(half, tile, [(2 * KEYS + PIXELS) * ROW]);
    static_assert(PIXELS * SUM_ROW * 2 <= (2 * KEYS + PIXELS) * ROW, "the means take the place of all else");
    half *const key = tile, *const value = key + KEYS * ROW, *const query = value + KEYS * ROW;
    const u32 thread = threadIdx.x, lane = thread % 32, first_row = thread / 32 * 16;
    const u32 pixels = p.h * p.w, keys = p.side * p.side, first_pixel = blockIdx.x * PIXELS;
    x += (size_t)blockIdx.z * pixels * p.cs;
    out += (size_t)blockIdx.z * pixels * p.cs;
    kv += (size_t)blockIdx.z * keys * p.kv_cs;

    for (u32 i = thread; i < PIXELS * PIECES; i += THREADS) {
        const u32 pixel = first_pixel + i / PIECES, channel = i % PIECES * PIECE;
        float v[PIECE] = {};
        if (pixel < pixels && channel < p.c) {
            float factor[PIECE], addend[PIECE];
            load(x + (size_t)pixel * p.cs + channel, v);
            load(scale + channel, factor);
            load(shift + channel, addend);
#pragma unroll
            for (u32 j = 0; j < PIECE; j++) v[j] = v[j] * factor[j] + addend[j];
        }
        store(query + i / PIECES * ROW + channel, v);
    }
    __syncthreads(); // the queries are stored
    u32 q[CHANNELS / 16][4];
#pragma unroll
    for (u32 k = 0; k < CHANNELS / 16; k++) {
        load_matrices(q[k], query + (first_row + lane % 16) * ROW + k * 16 + lane / 16 * 8);
    }

    // A lane has two rows (pixels): `first_row + lane / 4` and the row eight below it.
    float mean[CHANNELS / 8][4] = {}, greatest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (u32 first_key = 0; first_key < keys; first_key += KEYS) {
        Copies copies;
        for (u32 i = thread; i < KEYS * PIECES; i += THREADS) {
            const u32 j = i / PIECES, channel = i % PIECES * PIECE;
            const bool there = first_key + j < keys && channel < p.c;
            const half* const from = there ? kv + (size_t)(first_key + j) * p.kv_cs + channel : kv;
            copies.begin(key + j * ROW + channel, from, there);
            copies.begin(value + j * ROW + channel, there ? from + p.c : kv, there);
        }
        copies.close();
        copies.wait<0>();
        __syncthreads(); // keys and values are loaded

        float score[KEYS / 8][4] = {};
#pragma unroll
        for (u32 k = 0; k < CHANNELS / 16; k++) {
#pragma unroll
            for (u32 j = 0; j < KEYS / 16; j++) {
                u32 b[4];
                load_matrices(b, key + (j * 16 + lane / 16 * 8 + lane % 8) * ROW + k * 16 + lane / 8 % 2 * 8);
                multiply_add(score[2 * j], q[k], b[0], b[1]);
                multiply_add(score[2 * j + 1], q[k], b[2], b[3]);
            }
        }
        float now[2] = {greatest[0], greatest[1]}, added[2] = {};
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const bool there = first_key + j * 8 + lane % 4 * 2 + i % 2 < keys;
                score[j][i] = there ? score[j][i] * p.factor : -INFINITY;
                now[i / 2] = fmaxf(now[i / 2], score[j][i]);
            }
        }
#pragma unroll
        for (u32 row = 0; row < 2; row++) now[row] = row_max(now[row]);
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) added[i / 2] += score[j][i] = expf(score[j][i] - now[i / 2]);
        }
#pragma unroll
        for (u32 row = 0; row < 2; row++) {
            const float factor = expf(greatest[row] - now[row]);
            sum[row] = sum[row] * factor + row_sum(added[row]);
            greatest[row] = now[row];
#pragma unroll
            for (u32 i = 0; i < CHANNELS / 8; i++) mean[i][row * 2] *= factor, mean[i][row * 2 + 1] *= factor;
        }
#pragma unroll
        for (u32 k = 0; k < KEYS / 16; k++) {
            const float(&low)[4] = score[2 * k], (&high)[4] = score[2 * k + 1];
            const u32 a[4] = {pair(low[0], low[1]), pair(low[2], low[3]), pair(high[0], high[1]),
                              pair(high[2], high[3])};
#pragma unroll
            for (u32 i = 0; i < CHANNELS / 16; i++) {
                u32 b[4];
                load_transposed(b, value + (k * 16 + lane % 16) * ROW + i * 16 + lane / 16 * 8);
                multiply_add(mean[2 * i], a, b[0], b[1]);
                multiply_add(mean[2 * i + 1], a, b[2], b[3]);
            }
        }
        __syncthreads(); // keys and values have been used
    }

    // Goes through shared memory, so that neighbouring threads store neighbouring pieces.
    float* const means = reinterpret_cast<float*>(tile);
#pragma unroll
    for (u32 row = 0; row < 2; row++) {
        const float share = 1.0f / sum[row];
        float* const at = means + (first_row + lane / 4 + row * 8) * SUM_ROW + lane % 4 * 2;
#pragma unroll
        for (u32 i = 0; i < CHANNELS / 8; i++) {
            at[i * 8] = mean[i][row * 2] * share, at[i * 8 + 1] = mean[i][row * 2 + 1] * share;
        }
    }
    __syncthreads(); // the means are stored
    for (u32 i = thread; i < PIXELS * PIECES; i += THREADS) {
        const u32 row = i / PIECES, channel = i % PIECES * PIECE;
        if (first_pixel + row >= pixels || channel >= p.cs) continue;
        const size_t at = (size_t)(first_pixel + row) * p.cs + channel;
        float v[PIECE], w[PIECE];
        load(x + at, v);
        load(means + row * SUM_ROW + channel, w);
#pragma unroll
        for (u32 j = 0; j < PIECE; j++) v[j] += w[j];
        store(out + at, v);
    }
}

extern "C" __global__ void __launch_bounds__(128) cross_attend_mma_64_f16(
    const half* x, const float* scale, const float* shift, const half* kv, half* out, CrossAttendParams p) {
    attend_mma<64>(x, scale, shift, kv, out, p);
}
extern "C" __global__ void __launch_bounds__(128) cross_attend_mma_128_f16(
    const half* x, const float* scale, const float* shift, const half* kv, half* out, CrossAttendParams p) {
    attend_mma<128>(x, scale, shift, kv, out, p);
}
