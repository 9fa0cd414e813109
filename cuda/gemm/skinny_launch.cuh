// How a product of few rows becomes tiles, and what the kernel of skinny_kernel.cuh is told.
#pragma once

#include <algorithm>

#include "common/checks.h"
#include "common/rounding.h"
#include "common/tensor_map.h"
#include "gemm/skinny_kernel.cuh"

namespace heddle::cuda {

// Matmul or GatedMatmul with a dense weight.
struct SkinnyProduct {
  HeddleCudaMatrix x;
  HeddleCudaMatrix weight;
  const float* row_scales;  // of x, and
  const float* scales;      // of the weight's rows, where both are int8
  const float* bias;        // may be null
  HeddleCudaMatrix y;
  HeddleCudaActivation activation;  // if gated
};

// Weight rows of a tile.
inline constexpr int kSkinnyColumns[] = {32, 48, 64, 96, 112, 128};

// Weight rows of a tile: those that leave the busiest block with the least to read, of weights and x.
inline int ChooseSkinnyColumns(int64_t num_outputs, int64_t box_rows, bool gated, int num_blocks) {
  const auto most = [&](int columns) {
    return CeilDiv(CeilDiv(num_outputs, gated ? columns / 2 : columns), num_blocks) * (columns + box_rows);
  };
  int best = kSkinnyColumns[1];
  for (const int columns : kSkinnyColumns) {
    if (gated && columns == kSkinnyColumns[0]) continue;
    if (most(columns) <= most(best)) best = columns;
  }
  return best;
}

template <typename T, bool kGated>
auto SkinnyKernelFor(int columns) {
  if constexpr (!kGated) {
    if (columns == 32) return SkinnyKernel<T, 32, false>;
  }
  if (columns == 48) return SkinnyKernel<T, 48, kGated>;
  if (columns == 64) return SkinnyKernel<T, 64, kGated>;
  if (columns == 96) return SkinnyKernel<T, 96, kGated>;
  if (columns == 112) return SkinnyKernel<T, 112, kGated>;
  return SkinnyKernel<T, 128, kGated>;
}

inline TensorMapShape SkinnyMapShape(const HeddleCudaMatrix& matrix, int box_rows) {
  const int64_t size = SizeOf(matrix.dtype);
  // A single row has any stride, but a map is asked for a good one.
  const int64_t stride = matrix.num_rows == 1 ? RoundUp(matrix.size, 16) : matrix.stride;
  return {.base = matrix.data,
          .dtype = matrix.dtype,
          .rank = 2,
          .size = {static_cast<uint64_t>(matrix.size), static_cast<uint64_t>(matrix.num_rows)},
          .stride_bytes = {static_cast<uint64_t>(stride * size)},
          .box = {static_cast<uint32_t>(kSkinnyBoxRowBytes / size), static_cast<uint32_t>(box_rows)}};
}

// T: of x and the weight.
template <typename T, bool kGated>
void LaunchSkinny(const HeddleCudaStream& stream, const SkinnyProduct& product) {
  const HeddleCudaMatrix& x = product.x;
  const HeddleCudaMatrix& y = product.y;
  SkinnyParameters p{};
  p.row_scales = product.row_scales;
  p.scales = product.scales;
  p.bias = product.bias;
  p.y = y.data;
  p.y_stride = y.stride;
  p.num_rows = static_cast<int>(y.num_rows);
  p.box_rows = static_cast<int>(RoundUp(y.num_rows, 8));
  p.num_outputs = static_cast<int>(y.size);
  p.num_steps = static_cast<int>(CeilDiv(x.size * SizeOf(x.dtype), kStepRowBytes));
  p.y_dtype = y.dtype;
  p.activation = product.activation;

  const int num_blocks = stream.properties.num_multiprocessors;
  const int columns = ChooseSkinnyColumns(y.size, p.box_rows, kGated, num_blocks);
  p.num_tiles = static_cast<int>(CeilDiv(y.size, kGated ? columns / 2 : columns));
  const int left = stream.properties.shared_bytes_per_block - SkinnySharedBytes(0, p.box_rows, columns);
  p.num_stages = std::min(left / SkinnyStageBytes(p.box_rows, columns), kMaxSkinnyStages);
  p.x = TensorMapOf(SkinnyMapShape(x, p.box_rows));
  p.weight = TensorMapOf(SkinnyMapShape(product.weight, kGated ? columns / 2 : columns));

  const auto kernel = SkinnyKernelFor<T, kGated>(columns);
  const int shared_bytes = SkinnySharedBytes(p.num_stages, p.box_rows, columns);
  AllowShared(kernel, shared_bytes);
  Launch(stream, kernel, dim3(std::min(p.num_tiles, num_blocks)), dim3(kSkinnyThreads), shared_bytes, p);
}

}  // namespace heddle::cuda
