// Shared by all kernels. The host puts this text before theirs; the emulation defines the two macros differently.

#ifdef __METAL_VERSION__
#include <metal_stdlib>
// Memory of a threadgroup.
#define SHARED(T, name, dims) threadgroup T name dims
// Instantiates a kernel under a name.
#define KERNEL_ENTRY(name, ...) template [[host_name(#name)]] [[kernel]] decltype(__VA_ARGS__) __VA_ARGS__
#endif
using namespace metal;

// Four neighbouring numbers, aligned, as floats.
template <typename T> inline float4 load4(device const T* from) {
    return float4(*(device const vec<T, 4>*)from);
}

template <typename T> inline void store4(device T* to, float4 value) {
    *(device vec<T, 4>*)to = vec<T, 4>(value);
}

// The two input pixels that an output pixel of a bilinear resize reads: `first` with weight 1 - weight, `second` with
// weight.
struct Tap {
    uint first, second;
    float weight;
};

// Half-pixel centres, edges clamped; as `Axis::tap` in resize_add/mod.rs.
inline Tap tap_of(float ratio, uint i, uint len) {
    float source = max(ratio * (float(i) + 0.5f) - 0.5f, 0.0f);
    uint first = min(uint(source), len - 1);
    return Tap{first, min(first + 1, len - 1), source - float(first)};
}

inline float blend(float a, float b, float weight) {
    return a + weight * (b - a);
}

inline float4 blend(float4 a, float4 b, float weight) {
    return a + (b - a) * weight;
}
