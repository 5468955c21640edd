// Tensor cores: products of 16 by 16 by 8 in half with sums in float, fragments from shared memory, and copies into it.
//
// In fragments, lane l has row l / 4 and the two columns starting at l % 4 * 2 (PTX ISA, "Matrix Fragments for
// mma.m16n8k16"). When compiled for the host, for tests, shuffles do the same.
#pragma once
#include "common.cuh"

// Four 8 by 8 matrices of half; lanes 8 i .. 8 i + 7 give the rows of matrix i, 16 bytes each.
__device__ __forceinline__ void load_matrices(u32 (&to)[4], const half* row);
// The same, each matrix transposed.
__device__ __forceinline__ void load_transposed(u32 (&to)[4], const half* row);
// d += a b. a is 16 by 16, in quarters: rows 0.. and rows 8.. of columns 0.., then the same rows of columns 8..; b is 16
// by 8, d 16 by 8.
__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);

#ifdef __CUDACC__

__device__ __forceinline__ u32 shared_address(const void* at) { return (u32)__cvta_generic_to_shared(at); }

__device__ __forceinline__ void load_matrices(u32 (&to)[4], const half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void load_transposed(u32 (&to)[4], const half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else // Turing multiplies half as many columns at a time
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// Copies of 16 bytes from global to shared memory that a thread begins, closes into groups, and waits for. Turing copies
// synchronously.
struct Copies {
    // Copies, or stores zeros without reading.
    __device__ __forceinline__ void begin(half* to, const half* from, bool copies) {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;"
                     :
                     : "r"(shared_address(to)), "l"(from), "r"(copies ? 16 : 0)
                     : "memory");
#else
        *reinterpret_cast<uint4*>(to) = copies ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#endif
    }

    __device__ __forceinline__ void close() {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.commit_group;" ::: "memory");
#endif
    }

    // Waits until all groups but the last LEFT are complete.
    template <u32 LEFT> __device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
    }
};

#else

inline float half_of(u32 pair, u32 which) {
    const u16 bits = (u16)(pair >> 16 * which);
    half value;
    memcpy(&value, &bits, 2);
    return __half2float(value);
}

inline u16 bits_of(const half* at) {
    u16 bits;
    memcpy(&bits, at, 2);
    return bits;
}

// The value that each lane of the warp contributes.
template <typename T> struct Brought {
    T from[32];

    explicit Brought(T mine) {
        emulation::meet(emulation::to_word(mine), [&](u32 lane, unsigned long long word) {
            from[lane] = emulation::from_word<T>(word);
        });
    }
};

inline void load_matrices(u32 (&to)[4], const half* row) {
    const Brought<const half*> rows(row);
    const u32 lane = threadIdx.x % 32;
    for (u32 i = 0; i < 4; i++) {
        const half* const at = rows.from[8 * i + lane / 4] + lane % 4 * 2;
        to[i] = bits_of(at) | (u32)bits_of(at + 1) << 16;
    }
}

inline void load_transposed(u32 (&to)[4], const half* row) {
    const Brought<const half*> rows(row);
    const u32 lane = threadIdx.x % 32;
    for (u32 i = 0; i < 4; i++) {
        const half* const* const pair = rows.from + 8 * i + lane % 4 * 2;
        to[i] = bits_of(pair[0] + lane / 4) | (u32)bits_of(pair[1] + lane / 4) << 16;
    }
}

struct Fragments {
    u32 a[4], b[2];
};

inline void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const Fragments mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    const Brought<const Fragments*> all(&mine);
    const u32 lane = threadIdx.x % 32;
    for (u32 t = 0; t < 4; t++) {
        const Fragments& row = *all.from[lane / 4 * 4 + t];
        for (u32 column = 0; column < 2; column++) {
            const Fragments& other = *all.from[(lane % 4 * 2 + column) * 4 + t];
            for (u32 k = 0; k < 2; k++) {
                const float low = half_of(other.b[0], k), high = half_of(other.b[1], k);
                d[column] += half_of(row.a[0], k) * low + half_of(row.a[2], k) * high;
                d[2 + column] += half_of(row.a[1], k) * low + half_of(row.a[3], k) * high;
            }
        }
    }
    __syncwarp(); // all lanes have read the others' fragments
}

// Copies are delayed until they are waited for, so a kernel that waits too little reads the old contents.
struct Copies {
    struct Copy {
        half* to;
        const half* from;
    };
    Copy begun[64];
    u32 groups[8] = {}, open = 0, closed = 0; // `groups[i]`: copies of group i; `begun` has them in order

    void begin(half* to, const half* from, bool copies) { begun[total()] = {to, copies ? from : nullptr}, open++; }
    void close() { groups[closed++] = open, open = 0; }

    template <u32 LEFT> void wait() {
        while (closed > LEFT) {
            for (u32 i = 0; i < groups[0]; i++) {
                if (begun[i].from == nullptr) memset((void*)begun[i].to, 0, 16);
                else memcpy((void*)begun[i].to, begun[i].from, 16);
            }
            const u32 rest = total() - groups[0];
            memmove(begun, begun + groups[0], rest * sizeof(Copy));
            memmove(groups, groups + 1, --closed * sizeof(u32));
        }
    }

    u32 total() const {
        u32 sum = open;
        for (u32 i = 0; i < closed; i++) sum += groups[i];
        return sum;
    }
};

#endif
