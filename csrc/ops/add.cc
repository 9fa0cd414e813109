#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {

void Add(Stream& stream, const TensorView& x, const TensorView& y) {
  const OpTimer timer(stream);
  CheckRank("Add: y", y, 2);
  CheckView("Add: y", y, DType::kFloat32, y.shape);
  CheckView("Add: x", x, DType::kFloat32, y.shape);
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  ParallelForPieces(stream, y.dim(0), y.dim(1), [&](int64_t row, int64_t begin, int64_t end) {
    kernels.add(x.Row<float>(row) + begin, y.Row<float>(row) + begin, end - begin);
  });
}

void AddBias(Stream& stream, const TensorView& bias, const TensorView& y) {
  const OpTimer timer(stream);
  if (stream.cuda() != nullptr) return cuda::AddBias(stream, bias, y);
  CheckRank("AddBias: y", y, 2);
  CheckView("AddBias: y", y, DType::kFloat32, y.shape);
  CheckContiguous("AddBias: bias", bias, DType::kFloat32, {y.dim(1)});
  const float* terms = bias.Data<float>();
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  ParallelForPieces(stream, y.dim(0), y.dim(1), [&](int64_t row, int64_t begin, int64_t end) {
    kernels.add(terms + begin, y.Row<float>(row) + begin, end - begin);
  });
}

}  // namespace heddle::ops
