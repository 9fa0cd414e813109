// Products by a warp, of 16-bit floats summed in float32 and of int8 summed in int32: the instructions that compute
// capability 8.0 has.
#pragma once

#include <type_traits>

#include "common/numeric.cuh"

namespace heddle::cuda {

// A matrix of 8x8 elements that the warp holds in registers as LoadMatrices leaves it, transposed.
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t a) {
  uint32_t d;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(a));
  return d;
}

// d += a * b, [16, 16] by [16, 8]. Of d the lane l holds elements 2 * (l % 4) and the next of rows l / 4 (d[0], d[1])
// and l / 4 + 8 (d[2], d[3]); a is four 8x8 matrices: rows 0 and rows 8 of columns 0, then of columns 8; b is two,
// transposed: rows 0, rows 8.
template <typename T>
__device__ __forceinline__ void MultiplyAdd16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void MultiplyAdd16x8x16<__half>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                           uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void MultiplyAdd16x8x16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                                  uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d += a * b, [16, 32] by [32, 8] of int8. d as above; of a the lane l holds elements 4 * (l % 4) to the third after of
// rows l / 4 (a[0]) and l / 4 + 8 (a[1]), and those 16 columns on (a[2], a[3]); of b the same elements of column l / 4
// (b0), and those 16 rows on (b1). LoadMatrices leaves 16 bytes of eight rows so.
__device__ __forceinline__ void MultiplyAdd16x8x32(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Products of a 2:4 matrix a, of which two of four neighbours are stored, with their metadata as HeddleCudaWeight has
// it.
//
// [16, 32] by [32, 8]: the stored elements of a lie like those of MultiplyAdd16x8x16, and b is four 8x8 matrices. The
// metadata are those of lanes 4 g + 2 kHalf (columns 0 to 15) and the next (16 to 31): of row g in the low 16 bits, of
// row g + 8 in the others.
template <typename T, int kHalf>
__device__ __forceinline__ void MultiplyAddSparse16x8x32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4],
                                                         uint32_t metadata) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(metadata),
          "n"(kHalf));
  } else {
    asm("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(metadata),
          "n"(kHalf));
  }
}

// [16, 64] by [64, 8] of int8: the stored elements of a lie like those of MultiplyAdd16x8x32, b goes on in the same
// way. The metadata of lane 4 g + j are those of row g (j even) or g + 8 (j odd), columns 0 to 31 (j below 2) or 32
// to 63.
__device__ __forceinline__ void MultiplyAddSparse16x8x64(int32_t (&d)[4], const uint32_t (&a)[4],
                                                         const uint32_t (&b)[4], uint32_t metadata) {
  asm("mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, 0;"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(metadata));
}

}  // namespace heddle::cuda
