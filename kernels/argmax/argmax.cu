// argmax: the class with the largest upsampled logit (the lowest class among equals), and its confidence
//   definition: scalar.rs
//   logits [n, h, w, cs] T, of which `image` is read; ids [out_h, out_w] u8 or u16; confidence [out_h, out_w] f32
//   launch: grid = (ceil(out_w/32), ceil(out_h/8)), block = (32, 8)    twin: argmax.metal
//   bound: the first-level cache, 4 taps of cs channels per pixel; the full-size logits are never stored
// upsample: the upsampled logits themselves
//   out [classes, out_h, out_w] f32    launch: the same    bound: memory, the output
#include "common.cuh"

struct UpsampleParams {
    u32 image, classes, cs, h, w, out_h, out_w;
    float ratio_y, ratio_x; // pixels of the logits per pixel of the output
};

struct ArgmaxParams {
    u32 image, classes, cs, h, w, out_h, out_w;
    float ratio_y, ratio_x;
    u32 flags; // bit 0: ids are u16; bit 1: the confidence is requested
    float temperature;
};

// The four logits around an output pixel, eight classes at a time.
template <typename T> struct Around {
    const T *top_left, *bottom_left, *top_right, *bottom_right;
    float down, across;

    template <typename P> __device__ __forceinline__ Around(const T* logits, const P& p, u32 row, u32 column) {
        const Tap y = tap(row, p.h, p.ratio_y), x = tap(column, p.w, p.ratio_x);
        logits += (size_t)p.image * p.h * p.w * p.cs;
        top_left = logits + ((size_t)y.first * p.w + x.first) * p.cs;
        bottom_left = logits + ((size_t)y.second * p.w + x.first) * p.cs;
        top_right = logits + ((size_t)y.first * p.w + x.second) * p.cs;
        bottom_right = logits + ((size_t)y.second * p.w + x.second) * p.cs;
        down = y.weight, across = x.weight;
    }

    __device__ __forceinline__ void at(u32 first, float (&logit)[PIECE]) const {
        float tl[PIECE], bl[PIECE], tr[PIECE], br[PIECE];
        load(top_left + first, tl);
        load(bottom_left + first, bl);
        load(top_right + first, tr);
        load(bottom_right + first, br);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) logit[i] = mix(mix(tl[i], bl[i], down), mix(tr[i], br[i], down), across);
    }
};

// One thread per output pixel, all classes.
template <typename T>
__device__ __forceinline__ void argmax(const T* __restrict__ logits, u8* __restrict__ ids,
                                       float* __restrict__ confidence,
                                       ArgmaxParams p) {
    const u32 column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 8 + threadIdx.y,
        pixel = row * p.out_w + column;
    if (row >= p.out_h || column >= p.out_w) return;
    const bool sure = p.flags & 2;
    const Around<T> around(logits, p, row, column);
    float best = -INFINITY, sum = 0.0f; // sum of exp((logit - best) / temperature), rescaled when `best` grows
    u32 winner = 0;
    for (u32 first = 0; first < p.classes; first += PIECE) {
        float logit[PIECE];
        around.at(first, logit);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) {
            if (first + i >= p.classes) continue;
            const bool wins = logit[i] > best;
            if (sure) { // one of the two exponentials is exp(0)
                const float share = expf(-fabsf(logit[i] - best) / p.temperature);
                sum = wins ? sum * share + 1.0f : sum + share;
            }
            if (wins) best = logit[i], winner = first + i;
        }
    }
    if (p.flags & 1) reinterpret_cast<u16*>(ids)[pixel] = (u16)winner;
    else ids[pixel] = (u8)winner;
    if (sure) confidence[pixel] = 1.0f / sum;
}

// One thread per output pixel, all planes.
template <typename T>
__device__ __forceinline__ void upsample(const T* __restrict__ logits, float* __restrict__ out, UpsampleParams p) {
    const u32 column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 8 + threadIdx.y;
    if (row >= p.out_h || column >= p.out_w) return;
    const Around<T> around(logits, p, row, column);
    out += (size_t)row * p.out_w + column;
    for (u32 first = 0; first < p.classes; first += PIECE) {
        float logit[PIECE];
        around.at(first, logit);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) {
            if (first + i < p.classes) out[(size_t)(first + i) * p.out_h * p.out_w] = logit[i];
        }
    }
}

extern "C" __global__ void argmax_f32(const float* logits, u8* ids, float* confidence, ArgmaxParams p) {
    argmax(logits, ids, confidence, p);
}
extern "C" __global__ void argmax_f16(const half* logits, u8* ids, float* confidence, ArgmaxParams p) {
    argmax(logits, ids, confidence, p);
}
extern "C" __global__ void upsample_f32(const float* logits, float* out, UpsampleParams p) { upsample(logits, out, p); }
extern "C" __global__ void upsample_f16(const half* logits, float* out, UpsampleParams p) { upsample(logits, out, p); }
