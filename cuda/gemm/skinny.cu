#include "gemm/skinny.h"

#include <algorithm>
#include <type_traits>

#include "common/checks.h"
#include "common/rounding.h"
#include "common/tensor_map.h"
#include "gemm/skinny_kernel.cuh"

namespace heddle::cuda {
namespace {

// Weight rows of a tile.
constexpr int kColumns[] = {32, 48, 64, 96, 112, 128};

// Weight rows of a tile: those that leave the busiest block with the least to read, of weights and x.
int ChooseColumns(int64_t num_outputs, int64_t box_rows, bool gated, int num_blocks) {
  const auto most = [&](int columns) {
    return CeilDiv(CeilDiv(num_outputs, gated ? columns / 2 : columns), num_blocks) * (columns + box_rows);
  };
  int best = kColumns[1];
  for (const int columns : kColumns) {
    if (gated && columns == kColumns[0]) continue;
    if (most(columns) <= most(best)) best = columns;
  }
  return best;
}

template <typename T, bool kGated>
auto KernelFor(int columns) {
  if constexpr (!kGated) {
    if (columns == 32) return SkinnyKernel<T, 32, false>;
  }
  if (columns == 48) return SkinnyKernel<T, 48, kGated>;
  if (columns == 64) return SkinnyKernel<T, 64, kGated>;
  if (columns == 96) return SkinnyKernel<T, 96, kGated>;
  if (columns == 112) return SkinnyKernel<T, 112, kGated>;
  return SkinnyKernel<T, 128, kGated>;
}

TensorMapShape MapShape(const HeddleCudaMatrix& matrix, int box_rows) {
  // A single row has any stride, but a map is asked for a good one.
  const int64_t stride = matrix.num_rows == 1 ? RoundUp(matrix.size, 8) : matrix.stride;
  return {.base = matrix.data,
          .dtype = matrix.dtype,
          .rank = 2,
          .size = {static_cast<uint64_t>(matrix.size), static_cast<uint64_t>(matrix.num_rows), 1},
          .stride_bytes = {static_cast<uint64_t>(stride * 2), 0},
          .box = {kBoxElements, static_cast<uint32_t>(box_rows), 1}};
}

template <bool kGated>
void LaunchSkinny(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight,
                  const float* bias, HeddleCudaActivation activation, const HeddleCudaMatrix& y) {
  SkinnyParameters p{};
  p.bias = bias;
  p.y = y.data;
  p.y_stride = y.stride;
  p.num_rows = static_cast<int>(y.num_rows);
  p.box_rows = static_cast<int>(RoundUp(y.num_rows, 8));
  p.num_outputs = static_cast<int>(y.size);
  p.num_steps = static_cast<int>(CeilDiv(x.size, kStepElements));
  p.float32_output = y.dtype == kHeddleCudaFloat32;
  p.activation = activation;

  const int num_blocks = stream.properties.num_multiprocessors;
  const int columns = ChooseColumns(y.size, p.box_rows, kGated, num_blocks);
  p.num_tiles = static_cast<int>(CeilDiv(y.size, kGated ? columns / 2 : columns));
  const int left = stream.properties.shared_bytes_per_block - SkinnySharedBytes(0, p.box_rows, columns);
  p.num_stages = std::min(left / SkinnyStageBytes(p.box_rows, columns), kMaxSkinnyStages);
  p.x = TensorMapOf(MapShape(x, p.box_rows));
  p.weight = TensorMapOf(MapShape(weight, kGated ? columns / 2 : columns));

  DispatchFloat(x.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      const auto kernel = KernelFor<T, kGated>(columns);
      const int shared_bytes = SkinnySharedBytes(p.num_stages, p.box_rows, columns);
      AllowShared(kernel, shared_bytes);
      Launch(stream, kernel, dim3(std::min(p.num_tiles, num_blocks)), dim3(kSkinnyThreads), shared_bytes, p);
    }
  });
}

}  // namespace

bool CanSkinny(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight) {
  // Steps and rows are counted in 32 bits.
  return stream.properties.major == 9 && stream.properties.minor == 0 && x.dtype != kHeddleCudaFloat32 &&
         x.num_rows <= kMaxSkinnyRows && x.size <= (1 << 24) && weight.num_rows <= (1 << 30);
}

void SkinnyMatmul(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  LaunchSkinny<false>(stream, op.x, op.weight.values, op.bias, kHeddleCudaSilu, op.y);
}

void SkinnyGatedMatmul(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  LaunchSkinny<true>(stream, op.x, op.gate_up.values, op.bias, op.activation, op.y);
}

}  // namespace heddle::cuda
