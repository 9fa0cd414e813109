#include "gemm/epilogues.h"

#include "common/launch.h"
#include "gemm/activation.cuh"
#include "kernels/rows.cuh"

namespace heddle::cuda {
namespace {

struct SumsToOutput {
  const void* sums;
  const float* bias;  // may be null
  void* y;
  int64_t sums_stride;
  int64_t y_stride;
  int64_t num_rows;
  int64_t size;  // of a row of y
};

template <int kSize>
__device__ __forceinline__ void LoadBias(const float* bias, int64_t column, float (&values)[kSize]) {
#pragma unroll
  for (float& value : values) value = 0;
  if (bias != nullptr) LoadFloats(bias + column, values);
}

template <int kSize, typename S>
__device__ __forceinline__ void LoadSums(const S* from, const float (&bias)[kSize], float (&values)[kSize]) {
  LoadFloats(from, values);
#pragma unroll
  for (int i = 0; i < kSize; ++i) values[i] += bias[i];
}

template <typename T, int kSize>
__global__ void RoundWithBiasKernel(SumsToOutput op) {
  AllowNext();
  const int64_t column = MyColumn<kSize>();
  float bias[kSize];
  if (column < op.size) LoadBias(op.bias, column, bias);
  WaitForPrevious();
  if (column >= op.size) return;
  ForMyRows(op.num_rows, [&](int64_t row) {
    float values[kSize];
    LoadSums(static_cast<const float*>(op.sums) + row * op.sums_stride + column, bias, values);
    StoreFloats(values, static_cast<T*>(op.y) + row * op.y_stride + column);
  });
}

// Sums of S, y of T.
template <typename S, typename T, int kSize, HeddleCudaActivation kActivation>
__global__ void GateSumsKernel(SumsToOutput op) {
  AllowNext();
  const int64_t column = MyColumn<kSize>();
  float gate_bias[kSize];
  float up_bias[kSize];
  if (column < op.size) {
    LoadBias(op.bias, column, gate_bias);
    LoadBias(op.bias, op.size + column, up_bias);
  }
  WaitForPrevious();
  if (column >= op.size) return;
  ForMyRows(op.num_rows, [&](int64_t row) {
    const S* const sums = static_cast<const S*>(op.sums) + row * op.sums_stride + column;
    float gate[kSize];
    float up[kSize];
    LoadSums(sums, gate_bias, gate);
    LoadSums(sums + op.size, up_bias, up);
#pragma unroll
    for (int i = 0; i < kSize; ++i) gate[i] = Activate(kActivation, gate[i]) * up[i];
    StoreFloats(gate, static_cast<T*>(op.y) + row * op.y_stride + column);
  });
}

template <typename S, typename T, int kSize>
auto GateKernelFor(HeddleCudaActivation activation) {
  if (activation == kHeddleCudaSilu) return GateSumsKernel<S, T, kSize, kHeddleCudaSilu>;
  return activation == kHeddleCudaGeluTanh ? GateSumsKernel<S, T, kSize, kHeddleCudaGeluTanh>
                                           : GateSumsKernel<S, T, kSize, kHeddleCudaGelu>;
}

SumsToOutput SumsTo(const HeddleCudaMatrix& sums, const float* bias, const HeddleCudaMatrix& y) {
  return {sums.data, bias, y.data, sums.stride, y.stride, y.num_rows, y.size};
}

bool UsesVectors(const HeddleCudaMatrix& sums, const float* bias, const HeddleCudaMatrix& y) {
  return y.size % kVectorSize == 0 && HasAlignedRows(sums) && HasAlignedRows(y) && IsAligned(bias);
}

}  // namespace

void RoundWithBias(const HeddleCudaStream& stream, const HeddleCudaMatrix& sums, const float* bias,
                   const HeddleCudaMatrix& y) {
  DispatchFloat(y.dtype, [&]<typename T>() {
    DispatchVectors(UsesVectors(sums, bias, y), [&]<int kSize>() {
      const LaunchShape shape = RowsShape<kSize>(y.num_rows, y.size);
      Launch(stream, RoundWithBiasKernel<T, kSize>, shape.grid, shape.block, 0, SumsTo(sums, bias, y));
    });
  });
}

void GateSums(const HeddleCudaStream& stream, const HeddleCudaMatrix& sums, const float* bias,
              HeddleCudaActivation activation, const HeddleCudaMatrix& y) {
  DispatchFloat(y.dtype, [&]<typename T>() {
    DispatchVectors(UsesVectors(sums, bias, y), [&]<int kSize>() {
      const LaunchShape shape = RowsShape<kSize>(y.num_rows, y.size);
      const auto kernel = sums.dtype == kHeddleCudaFloat32 ? GateKernelFor<float, T, kSize>(activation)
                                                           : GateKernelFor<T, T, kSize>(activation);
      Launch(stream, kernel, shape.grid, shape.block, 0, SumsTo(sums, bias, y));
    });
  });
}

}  // namespace heddle::cuda
