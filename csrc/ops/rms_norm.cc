#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {

void RmsNorm(Stream& stream, const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y) {
  const OpTimer timer(stream);
  if (stream.cuda() != nullptr) return cuda::RmsNorm(stream, x, weight, epsilon, y);
  const int rank = x.shape.rank();
  HEDDLE_CHECK(rank == 2 || rank == 3, "RmsNorm: x has shape " + x.shape.ToString());
  CheckView("RmsNorm: x", x, DType::kFloat32, x.shape);
  CheckView("RmsNorm: y", y, DType::kFloat32, x.shape);
  const int64_t num_heads = rank == 3 ? x.dim(1) : 1;
  const int64_t size = x.dim(rank - 1);
  CheckContiguous("RmsNorm: weight", weight, DType::kFloat32, {size});
  const float* scales = weight.Data<float>();
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  ParallelFor(stream, x.dim(0) * num_heads, size, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / num_heads;
      const int64_t column = i % num_heads * size;
      kernels.rms_norm(x.Row<float>(row) + column, scales, epsilon, size, y.Row<float>(row) + column);
    }
  });
}

void AddRmsNorm(Stream& stream, const TensorView& x, const TensorView& residual, const TensorView& weight,
                float epsilon, const TensorView& y) {
  const OpTimer timer(stream);
  if (stream.cuda() != nullptr) return cuda::AddRmsNorm(stream, x, residual, weight, epsilon, y);
  CheckRank("AddRmsNorm: x", x, 2);
  const int64_t size = x.dim(1);
  CheckView("AddRmsNorm: x", x, DType::kFloat32, x.shape);
  CheckView("AddRmsNorm: residual", residual, DType::kFloat32, x.shape);
  CheckView("AddRmsNorm: y", y, DType::kFloat32, x.shape);
  CheckContiguous("AddRmsNorm: weight", weight, DType::kFloat32, {size});
  const float* scales = weight.Data<float>();
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  ParallelFor(stream, x.dim(0), size, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* sum = residual.Row<float>(row);
      kernels.add(x.Row<float>(row), sum, size);
      kernels.rms_norm(sum, scales, epsilon, size, y.Row<float>(row));
    }
  });
}

}  // namespace heddle::ops
