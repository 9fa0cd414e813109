#include "ops/checks.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {

static_assert(static_cast<int>(Activation::kSilu) == static_cast<int>(cpu::GatedKind::kSilu));
static_assert(static_cast<int>(Activation::kGeluTanh) == static_cast<int>(cpu::GatedKind::kGeluTanh));
static_assert(static_cast<int>(Activation::kGelu) == static_cast<int>(cpu::GatedKind::kGelu));

void GatedActivation(Stream& stream, Activation activation, const TensorView& gate_up, const TensorView& y) {
  CheckRank("GatedActivation: y", y, 2);
  const int64_t size = y.dim(1);
  CheckView("GatedActivation: y", y, DType::kFloat32, y.shape);
  CheckView("GatedActivation: gate_up", gate_up, DType::kFloat32, {y.dim(0), 2 * size});
  const auto kind = static_cast<cpu::GatedKind>(activation);
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  ParallelForPieces(stream, y.dim(0), size, [&](int64_t row, int64_t begin, int64_t end) {
    const float* gate = gate_up.Row<float>(row) + begin;
    kernels.gated_activation(kind, gate, gate + size, end - begin, y.Row<float>(row) + begin);
  });
}

}  // namespace heddle::ops
