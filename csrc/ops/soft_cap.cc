#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {

void SoftCap(Stream& stream, float cap, const TensorView& x) {
  const OpTimer timer(stream);
  if (stream.cuda() != nullptr) return cuda::SoftCap(stream, cap, x);
  CheckRank("SoftCap: x", x, 2);
  CheckView("SoftCap: x", x, DType::kFloat32, x.shape);
  HEDDLE_CHECK(cap > 0, "cap " + std::to_string(cap));
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  ParallelForPieces(stream, x.dim(0), x.dim(1), [&](int64_t row, int64_t begin, int64_t end) {
    kernels.soft_cap(cap, x.Row<float>(row) + begin, end - begin);
  });
}

}  // namespace heddle::ops
