// Just enough of metal_stdlib for our kernels, over fibers.h.

#pragma once
#include "fibers.h"

namespace metal {

using emulation::uint;
using emulation::uint3;
typedef emulation::Half half;
typedef unsigned char uchar;
typedef unsigned short ushort;

template <typename T, int N> struct vec {
    T lanes[N];

    vec() = default;
    vec(T value) { for (int i = 0; i < N; ++i) lanes[i] = value; }
    vec(T a, T b, T c, T d) : lanes{a, b, c, d} {}
    template <typename U> explicit vec(const vec<U, N>& other) {
        for (int i = 0; i < N; ++i) lanes[i] = T(other.lanes[i]);
    }
    T& operator[](uint i) { return lanes[i]; }
    const T& operator[](uint i) const { return lanes[i]; }
};
typedef vec<float, 4> float4;

// The product is exact in double, and the sum nearly: fast where the host has no such instruction.
inline float fma(float a, float b, float c) { return float(double(a) * b + c); }

#define EACH(expression)                                                                                                          \
    float4 out;                                                                                                                   \
    for (int i = 0; i < 4; ++i) out[i] = expression;                                                                              \
    return out
inline float4 operator+(float4 a, float4 b) { EACH(a[i] + b[i]); }
inline float4 operator-(float4 a, float4 b) { EACH(a[i] - b[i]); }
inline float4 operator*(float4 a, float4 b) { EACH(a[i] * b[i]); }
inline float4 operator*(float4 a, float b) { EACH(a[i] * b); }
inline float4& operator+=(float4& a, float4 b) { return a = a + b; }
inline float4& operator*=(float4& a, float b) { return a = a * b; }
inline float4 max(float4 a, float4 b) { EACH(a[i] > b[i] ? a[i] : b[i]); }
inline float4 fma(float4 a, float4 b, float4 c) { EACH(fma(a[i], b[i], c[i])); }
#undef EACH

inline float max(float a, float b) { return a > b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline uint min(uint a, uint b) { return a < b ? a : b; }
inline float exp(float a) { return std::exp(a); }
inline float abs(float a) { return std::fabs(a); }

enum class mem_flags { mem_none, mem_device, mem_threadgroup };
inline void threadgroup_barrier(mem_flags) { emulation::barrier(); }
inline void simdgroup_barrier(mem_flags) { emulation::meet(0, [](uint, uint64_t) {}); }

inline float simd_sum(float value) {
    float sum = 0;
    emulation::meet(emulation::to_word(value), [&](uint, uint64_t word) { sum += emulation::from_word<float>(word); });
    return sum;
}
inline float simd_max(float value) {
    float greatest = value;
    emulation::meet(emulation::to_word(value),
                    [&](uint, uint64_t word) { greatest = max(greatest, emulation::from_word<float>(word)); });
    return greatest;
}
template <typename T> inline T simd_shuffle_xor(T value, ushort mask) {
    return emulation::from_lane(value, emulation::lane() ^ mask);
}

} // namespace metal

// Address spaces; a `threadgroup` array is declared by SHARED.
#define device
#define constant const
#define threadgroup
