// The subset of metal_stdlib that our kernels use, on top of fibers.h.

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

// The product is exact in double, and the sum nearly so. Fast even if the host has no such instruction.
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
inline float fabs(float a) { return std::fabs(a); }

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

// 8x8 numbers of a simdgroup. Each lane keeps everything that was loaded, but only its own two of the computed numbers: here, a
// product is never the operand of another.
template <typename T, int ROWS, int COLUMNS> struct simdgroup_matrix {
    static_assert(ROWS == 8 && COLUMNS == 8, "there are no others");
    T all[8][8];
};

// The position of this lane's two numbers. Metal does not specify it, so this is deliberately not where a kernel might expect them.
inline uint own_row() { return emulation::lane() % 8; }
inline uint own_column() { return emulation::lane() / 8 * 2; }

template <typename T, int ROWS, int COLUMNS> inline simdgroup_matrix<T, ROWS, COLUMNS> make_filled_simdgroup_matrix(T value) {
    simdgroup_matrix<T, ROWS, COLUMNS> matrix;
    for (auto& row : matrix.all) for (T& number : row) number = value;
    return matrix;
}
template <typename T> inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& matrix, const T* from, uint stride) {
    for (uint i = 0; i < 8; ++i) memcpy(matrix.all[i], from + i * stride, 8 * sizeof(T));
}
template <typename T> inline void simdgroup_store(const simdgroup_matrix<T, 8, 8>& matrix, T* to, uint stride) {
    for (uint j = 0; j < 2; ++j) to[own_row() * stride + own_column() + j] = matrix.all[own_row()][own_column() + j];
}
template <typename T, typename S>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<S, 8, 8>& to, const simdgroup_matrix<T, 8, 8>& left,
                                          const simdgroup_matrix<T, 8, 8>& right, const simdgroup_matrix<S, 8, 8>& add) {
    uint row = own_row(), column = own_column();
    for (uint j = column; j < column + 2; ++j) {
        S sum = add.all[row][j];
        for (uint k = 0; k < 8; ++k) sum = fma(S(left.all[row][k]), S(right.all[k][j]), sum);
        to.all[row][j] = sum;
    }
}

} // namespace metal

// Address spaces; a `threadgroup` array is declared by SHARED.
#define device
#define constant const
#define threadgroup

// Keywords of Metal that C++ does not have; no kernel may use them as names.
#pragma GCC poison vertex fragment thread threadgroup_imageblock ray_data object_data visible intersection stitchable mesh
#pragma GCC poison object bfloat texture sampler
