#include "common/launch.h"
#include "common/ops.h"
#include "kernels/philox.cuh"
#include "kernels/rows.cuh"

namespace heddle::cuda {
namespace {

// Elements are numbered in the order of rows and columns: neither strides nor the shape of the launch show.
template <typename T, int kSize>
__global__ void FillRandomKernel(HeddleCudaMatrix y, uint64_t seed, float deviation) {
  const int64_t column = MyColumn<kSize>();
  WaitForPrevious();
  if (column >= y.size) return;
  ForMyRows(y.num_rows, [&](int64_t row) {
    const auto index = static_cast<uint64_t>(row * y.size + column);
    float values[kSize];
    if constexpr (kSize == 1) {
      values[0] = Normal(seed, index);
    } else {
#pragma unroll
      for (int i = 0; i < kSize; i += 4) {
        const float4 group = NormalsOfGroup(seed, index / 4 + i / 4);
        values[i] = group.x;
        values[i + 1] = group.y;
        values[i + 2] = group.z;
        values[i + 3] = group.w;
      }
    }
#pragma unroll
    for (float& value : values) value *= deviation;
    StoreFloats(values, static_cast<T*>(y.data) + row * y.stride + column);
  });
}

}  // namespace

void FillRandom(HeddleCudaStream& stream, const HeddleCudaMatrix& y, uint64_t seed, float deviation) {
  CheckMatrix(y, "fill_random: y");
  if (IsEmpty(y)) return;
  DispatchFloat(y.dtype, [&]<typename T>() {
    DispatchVectors(y.size % kVectorSize == 0 && HasAlignedRows(y), [&]<int kSize>() {
      const LaunchShape shape = RowsShape<kSize>(y.num_rows, y.size);
      Launch(stream, FillRandomKernel<T, kSize>, shape.grid, shape.block, 0, y, seed, deviation);
    });
  });
  // What was filled may be weights, which later kernels read before they wait for the kernel ahead of them. Behind
  // something that is no kernel nothing starts early; the counters are zero between ops anyway.
  HEDDLE_CUDA_CHECK(cudaMemsetAsync(stream.counters, 0, sizeof(uint32_t), stream.stream));
}

}  // namespace heddle::cuda
