// upsample: bilinear logits at the photo's size.    argmax: their maximum and its confidence.    twin: argmax.cu
//   definition: scalar.rs
//   logits [n, h, w, cs] T, of which one image is read; planes [classes, out_h, out_w] f32
//   ids [out_h, out_w] of 8 bits, or 16 with flag 1; confidence [out_h, out_w] f32 with flag 2; among equals the
//   lowest class wins
//   confidence = 1 / sum over classes of e^((logit - winner) / temperature)
//   launch: grid = (ceil(out_w / 32), ceil(out_h / 8)), block = (32, 8), one thread per pixel
//   bound: upsample memory, planes once; argmax the caches, 4 * classes logits per pixel

struct UpsampleParams {
    uint image, classes, cs, h, w, out_h, out_w;
    float ratio_y, ratio_x;
};

struct ArgmaxParams {
    uint image, classes, cs, h, w, out_h, out_w;
    float ratio_y, ratio_x;
    uint flags;
    float temperature;
};

// The logits of an output pixel.
template <typename T> struct Upsampled {
    device const T *above_left, *above_right, *below_left, *below_right;
    float y, x;

    float logit(uint c) const {
        float left = blend(float(above_left[c]), float(below_left[c]), y);
        float right = blend(float(above_right[c]), float(below_right[c]), y);
        return blend(left, right, x);
    }
};

template <typename T, typename P>
inline Upsampled<T> upsampled(device const T* logits, constant P& p, uint row, uint column) {
    Tap y = tap_of(p.ratio_y, row, p.h), x = tap_of(p.ratio_x, column, p.w);
    device const T* above = logits + (p.image * p.h + y.first) * p.w * p.cs;
    device const T* below = logits + (p.image * p.h + y.second) * p.w * p.cs;
    uint left = x.first * p.cs, right = x.second * p.cs;
    return Upsampled<T>{above + left, above + right, below + left, below + right, y.weight, x.weight};
}

template <typename T>
[[kernel]] void upsample(device const T* logits [[buffer(0)]], device float* planes [[buffer(1)]],
                         constant UpsampleParams& p [[buffer(2)]], uint3 block [[threadgroup_position_in_grid]],
                         uint3 tid [[thread_position_in_threadgroup]]) {
    uint row = 8 * block.y + tid.y, column = 32 * block.x + tid.x;
    if (row >= p.out_h || column >= p.out_w) return;
    Upsampled<T> pixel = upsampled(logits, p, row, column);
    for (uint c = 0; c < p.classes; ++c) planes[(c * p.out_h + row) * p.out_w + column] = pixel.logit(c);
}

template <typename T>
[[kernel]] void argmax(device const T* logits [[buffer(0)]], device uchar* ids [[buffer(1)]],
                       device float* confidence [[buffer(2)]],
                       constant ArgmaxParams& p [[buffer(3)]], uint3 block [[threadgroup_position_in_grid]],
                       uint3 tid [[thread_position_in_threadgroup]]) {
    uint row = 8 * block.y + tid.y, column = 32 * block.x + tid.x, at = row * p.out_w + column;
    if (row >= p.out_h || column >= p.out_w) return;
    Upsampled<T> pixel = upsampled(logits, p, row, column);
    float greatest = pixel.logit(0);
    uint winner = 0;
    for (uint c = 1; c < p.classes; ++c) {
        float value = pixel.logit(c);
        if (value > greatest) {
            greatest = value;
            winner = c;
        }
    }
    if (p.flags & 1) {
        ((device ushort*)ids)[at] = ushort(winner);
    } else {
        ids[at] = uchar(winner);
    }
    if (p.flags & 2) {
        float sum = 0.0f;
        for (uint c = 0; c < p.classes; ++c) sum += exp((pixel.logit(c) - greatest) / p.temperature);
        confidence[at] = 1.0f / sum;
    }
}

KERNEL_ENTRY(upsample_f32, upsample<float>);
KERNEL_ENTRY(upsample_f16, upsample<half>);
KERNEL_ENTRY(argmax_f32, argmax<float>);
KERNEL_ENTRY(argmax_f16, argmax<half>);
