// The library of bitsandbytes, opened at run time: the functions that its Python package multiplies LLM.int8 by.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "common/error.h"

namespace heddle::cuda {

// Of 0.45 and later. Matrices are contiguous, float16 unless it is said.
struct BitsAndBytesLibrary {
  // Holds a handle of cuBLAS on the calling thread's device. There is no function that gives it back.
  void* (*get_context)() = nullptr;
  // q [rows, columns] and largest [rows]: the largest magnitude of a row's elements below the threshold, and these as
  // shares of it in 127ths; 0 for the others.
  void (*quantize_rows)(__half* x, int8_t* q, float* largest, float threshold, int rows, int columns,
                        cudaStream_t stream) = nullptr;
  // y [rows, outputs] int32 = q [rows, columns] weight^T, for weight [outputs, columns], both int8; columns and outputs
  // are multiples of 4, strides are elements between rows. Not zero where it failed.
  int (*multiply)(void* context, int columns, int rows, int outputs, const int8_t* weight, const int8_t* q, void* y,
                  float* unused, int weight_stride, int q_stride, int y_stride, cudaStream_t stream) = nullptr;
  // y = sums * largest * column_scales / 127^2 (+ bias).
  void (*scale_sums)(int32_t* sums, float* largest, float* column_scales, __half* y, __half* bias, int rows,
                     int outputs, cudaStream_t stream) = nullptr;
};

// Opens it at the first call, as bitsandbytes_check says, for as long as the process lives. Fails with
// kHeddleCudaUnavailable; a later call tries again. Any thread may call it.
const BitsAndBytesLibrary& BitsAndBytes();

// What get_context gave for the calling thread's device, which is `device`: one for all. Any thread.
void* BitsAndBytesContext(int device);

}  // namespace heddle::cuda
