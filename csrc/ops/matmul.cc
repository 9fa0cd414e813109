#include "ops/checks.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {

void Matmul(Stream& stream, const TensorView& x, const PackedMatrix& weight, const TensorView& y,
            const TensorView* bias) {
  CheckRank("Matmul: x", x, 2);
  CheckView("Matmul: x", x, DType::kFloat32, {x.dim(0), weight.k()});
  CheckView("Matmul: y", y, DType::kFloat32, {x.dim(0), weight.n()});
  if (bias != nullptr) CheckContiguous("Matmul: bias", *bias, DType::kFloat32, {weight.n()});
  if (x.dim(0) == 0 || weight.n() == 0) return;

  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  const size_t scratch_floats = kernels.matmul_scratch_floats();
  const int num_threads = stream.threads().num_threads();
  float* scratch =
      static_cast<float*>(stream.Scratch(scratch_floats * sizeof(float) * static_cast<size_t>(num_threads)));
  const auto run = [&](int thread, int64_t panel_begin, int64_t panel_end) {
    const cpu::MatmulArgs args{
        .x = x.Data<float>(),
        .x_stride = x.row_stride,
        .m = x.dim(0),
        .weight = weight.Panel(0),
        .storage = StorageOf("Matmul: weight", weight.dtype()),
        .panel_bytes = weight.k_padded() * kPanelWidth * static_cast<int64_t>(DTypeSize(weight.dtype())),
        .n = weight.n(),
        .num_slices = static_cast<int>(weight.slice_bounds().size()) - 1,
        .slice_bounds = weight.slice_bounds().data(),
        .packed_bounds = weight.packed_bounds().data(),
        .bias = bias != nullptr ? bias->Data<float>() : nullptr,
        .y = y.Data<float>(),
        .y_stride = y.row_stride,
        .scratch = scratch + scratch_floats * static_cast<size_t>(thread)};
    kernels.matmul(args, panel_begin, panel_end);
  };
  // Below this many multiply-adds waking the others costs more than they save.
  constexpr int64_t kMinParallelWork = 65536;
  if (num_threads == 1 || x.dim(0) * weight.n() * weight.k() < kMinParallelWork) return run(0, 0, weight.num_panels());
  stream.threads().Run([&](int thread) {
    const WorkRange panels = SplitWork(weight.num_panels(), thread, num_threads);
    run(thread, panels.begin, panels.end);
  });
}

}  // namespace heddle::ops
