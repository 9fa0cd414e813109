#include "common/launch.h"
#include "common/ops.h"
#include "kernels/rows.cuh"

namespace heddle::cuda {
namespace {

template <typename T, int kSize>
__device__ __forceinline__ void LoadElements(const T* elements, float (&values)[kSize]) {
  if constexpr (sizeof(T) == 1) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] = static_cast<float>(elements[i]);
  } else {
    LoadFloats(elements, values);
  }
}

template <typename T, int kSize>
__global__ void EmbeddingKernel(HeddleCudaEmbedding op) {
  AllowNext();
  const int64_t column = MyColumn<kSize>();
  WaitForPrevious();
  if (column >= op.y.size) return;
  const T* const table = static_cast<const T*>(op.table.data) + column;
  float* const y = static_cast<float*>(op.y.data) + column;
  ForMyRows(op.y.num_rows, [&](int64_t i) {
    const int64_t row = op.ids[i] - op.first_id;
    float values[kSize] = {};
    if (row >= 0 && row < op.table.num_rows) {
      LoadElements(table + row * op.table.stride, values);
      const float scale = op.table_scales != nullptr ? op.table_scales[row] * op.scale : op.scale;
      // A product that is negative zero becomes zero, so that the parts of a divided table add up to the whole.
#pragma unroll
      for (float& value : values) value = fmaf(value, scale, 0.0f);
    }
    StoreFloats(values, y + i * op.y.stride);
  });
}

}  // namespace

void Embedding(HeddleCudaStream& stream, const HeddleCudaEmbedding& op) {
  const bool quantized = op.table.dtype == kHeddleCudaInt8;
  if (quantized) {
    CheckSizes(op.table, "embedding: table");
  } else {
    CheckMatrix(op.table, "embedding: table");
  }
  CheckMatrix(op.y, "embedding: y");
  Require(op.y.dtype == kHeddleCudaFloat32, "embedding: y is not float32");
  Require(op.table.size == op.y.size, "embedding: rows of table and y differ in size");
  if (IsEmpty(op.y)) return;
  Require(op.ids != nullptr, "embedding: ids is null");
  const bool vectors = op.y.size % kVectorSize == 0 && HasAlignedRows(op.table) && HasAlignedRows(op.y);
  Require((op.table_scales != nullptr) == quantized, "embedding: scales are those of an int8 table");
  const auto launch = [&]<typename T>() {
    DispatchVectors(vectors, [&]<int kSize>() {
      const LaunchShape shape = RowsShape<kSize>(op.y.num_rows, op.y.size);
      Launch(stream, EmbeddingKernel<T, kSize>, shape.grid, shape.block, 0, op);
    });
  };
  if (quantized) return launch.template operator()<int8_t>();
  DispatchFloat(op.table.dtype, launch);
}

}  // namespace heddle::cuda
