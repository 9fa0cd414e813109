// AddBias, SoftCap, GatherRows and FillSampled.
#include "common/launch.h"
#include "common/ops.h"
#include "kernels/rows.cuh"

namespace heddle::cuda {
namespace {

template <typename T, int kSize>
__global__ void AddBiasKernel(HeddleCudaAddBias op) {
  AllowNext();
  const int64_t column = MyColumn<kSize>();
  float bias[kSize];
  if (column < op.y.size) LoadFloats(op.bias + column, bias);
  WaitForPrevious();
  if (column >= op.y.size) return;
  T* const y = static_cast<T*>(op.y.data) + column;
  ForMyRows(op.y.num_rows, [&](int64_t row) {
    float values[kSize];
    LoadFloats(y + row * op.y.stride, values);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] += bias[i];
    StoreFloats(values, y + row * op.y.stride);
  });
}

template <int kSize>
__global__ void SoftCapKernel(HeddleCudaSoftCap op) {
  AllowNext();
  const int64_t column = MyColumn<kSize>();
  WaitForPrevious();
  if (column >= op.x.size) return;
  float* const x = static_cast<float*>(op.x.data) + column;
  ForMyRows(op.x.num_rows, [&](int64_t row) {
    float values[kSize];
    LoadFloats(x + row * op.x.stride, values);
#pragma unroll
    for (float& value : values) value = op.cap * tanhf(value / op.cap);
    StoreFloats(values, x + row * op.x.stride);
  });
}

// A matrix as rows of whole units, which are all that a copy needs to know.
template <typename Unit>
struct UnitRows {
  Unit* data;
  int64_t num_rows;
  int64_t size;
  int64_t stride;

  explicit UnitRows(const HeddleCudaMatrix& matrix)
      : data(static_cast<Unit*>(matrix.data)),
        num_rows(matrix.num_rows),
        size(Units(matrix.dtype, matrix.size)),
        stride(Units(matrix.dtype, matrix.stride)) {}

  static int64_t Units(HeddleCudaDType dtype, int64_t elements) {
    return elements * SizeOf(dtype) / int64_t{sizeof(Unit)};
  }
};

template <typename Unit>
__global__ void GatherRowsKernel(UnitRows<Unit> x, const int32_t* rows, UnitRows<Unit> y) {
  AllowNext();
  const int64_t column = MyColumn<1>();
  WaitForPrevious();
  if (column >= y.size) return;
  ForMyRows(y.num_rows, [&](int64_t i) {
    const int64_t row = rows[i];
    Unit value{};
    if (row >= 0 && row < x.num_rows) value = x.data[row * x.stride + column];
    y.data[i * y.stride + column] = value;
  });
}

__global__ void FillSampledKernel(int32_t* ids, int64_t num_ids, const int32_t* sampled) {
  AllowNext();
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  WaitForPrevious();
  if (i < num_ids && ids[i] < 0) ids[i] = sampled[-1 - ids[i]];
}

template <typename Unit>
void LaunchGatherRows(const HeddleCudaStream& stream, const HeddleCudaGatherRows& op) {
  const UnitRows<Unit> x(op.x);
  const UnitRows<Unit> y(op.y);
  const LaunchShape shape = RowsShape<1>(y.num_rows, y.size);
  Launch(stream, GatherRowsKernel<Unit>, shape.grid, shape.block, 0, x, op.rows, y);
}

}  // namespace

void AddBias(HeddleCudaStream& stream, const HeddleCudaAddBias& op) {
  CheckMatrix(op.y, "add_bias: y");
  if (IsEmpty(op.y)) return;
  Require(op.bias != nullptr, "add_bias: bias is null");
  const bool vectors = op.y.size % kVectorSize == 0 && HasAlignedRows(op.y) && IsAligned(op.bias);
  DispatchFloat(op.y.dtype, [&]<typename T>() {
    DispatchVectors(vectors, [&]<int kSize>() {
      const LaunchShape shape = RowsShape<kSize>(op.y.num_rows, op.y.size);
      Launch(stream, AddBiasKernel<T, kSize>, shape.grid, shape.block, 0, op);
    });
  });
}

void SoftCap(HeddleCudaStream& stream, const HeddleCudaSoftCap& op) {
  CheckMatrix(op.x, "soft_cap: x");
  Require(op.x.dtype == kHeddleCudaFloat32, "soft_cap: x is not float32");
  Require(op.cap > 0, "soft_cap: cap is not positive");
  if (IsEmpty(op.x)) return;
  DispatchVectors(op.x.size % kVectorSize == 0 && HasAlignedRows(op.x), [&]<int kSize>() {
    const LaunchShape shape = RowsShape<kSize>(op.x.num_rows, op.x.size);
    Launch(stream, SoftCapKernel<kSize>, shape.grid, shape.block, 0, op);
  });
}

void GatherRows(HeddleCudaStream& stream, const HeddleCudaGatherRows& op) {
  CheckMatrix(op.x, "gather_rows: x");
  CheckMatrix(op.y, "gather_rows: y");
  Require(op.x.dtype == op.y.dtype, "gather_rows: x and y differ in dtype");
  Require(op.x.size == op.y.size, "gather_rows: rows of x and y differ in size");
  if (IsEmpty(op.y)) return;
  Require(op.rows != nullptr, "gather_rows: rows is null");
  const int64_t element_bytes = SizeOf(op.y.dtype);
  const bool vectors = op.y.size * element_bytes % 16 == 0 && HasAlignedRows(op.x) && HasAlignedRows(op.y);
  if (vectors) return LaunchGatherRows<uint4>(stream, op);
  if (element_bytes == 4) return LaunchGatherRows<uint32_t>(stream, op);
  LaunchGatherRows<uint16_t>(stream, op);
}

void FillSampled(HeddleCudaStream& stream, int32_t* ids, int64_t num_ids, const int32_t* sampled) {
  if (num_ids == 0) return;
  Require(num_ids > 0 && ids != nullptr && sampled != nullptr, "fill_sampled: an argument is null or negative");
  constexpr int kThreads = 256;
  const auto num_blocks = static_cast<unsigned>((num_ids + kThreads - 1) / kThreads);
  Launch(stream, FillSampledKernel, dim3(num_blocks), dim3(kThreads), 0, ids, num_ids, sampled);
}

}  // namespace heddle::cuda
