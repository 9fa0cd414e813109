// Products of 16-bit floats by a warp, summed in float32: the instructions that compute capability 8.0 has.
#pragma once

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

}  // namespace heddle::cuda
