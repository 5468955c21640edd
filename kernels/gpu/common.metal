// What all kernels share. The host puts this text ahead of theirs; the emulation defines the two macros its own way.

#ifdef __METAL_VERSION__
#include <metal_stdlib>
// Memory of a threadgroup.
#define SHARED(T, name, dims) threadgroup T name dims
// Makes an instance of a kernel known by its name.
#define KERNEL_ENTRY(name, ...) template [[host_name(#name)]] [[kernel]] decltype(__VA_ARGS__) __VA_ARGS__
#endif
using namespace metal;

// Four neighbours, aligned, as floats.
template <typename T> inline float4 load4(device const T* from) {
    return float4(*(device const vec<T, 4>*)from);
}

template <typename T> inline void store4(device T* to, float4 value) {
    *(device vec<T, 4>*)to = vec<T, 4>(value);
}

// Where an output pixel of a bilinear resize looks: `first` weighs 1 - weight, `second` weighs weight.
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
