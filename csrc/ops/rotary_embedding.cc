#include "ops/checks.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {

void RotaryEmbedding(Stream& stream, std::span<const int32_t> positions, const TensorView& cos_sin, int num_heads,
                     int head_dim, const TensorView& x) {
  CheckView("RotaryEmbedding: x", x, DType::kFloat32,
            {static_cast<int64_t>(positions.size()), int64_t{num_heads} * head_dim});
  CheckRank("RotaryEmbedding: cos_sin", cos_sin, 2);
  CheckView("RotaryEmbedding: cos_sin", cos_sin, DType::kFloat32, cos_sin.shape);
  HEDDLE_CHECK(cos_sin.dim(1) % 2 == 0 && cos_sin.dim(1) <= head_dim,
               std::to_string(cos_sin.dim(1)) + " rotated of " + std::to_string(head_dim));
  for (int32_t position : positions) {
    HEDDLE_CHECK(position >= 0 && position < cos_sin.dim(0),
                 std::to_string(position) + " of " + std::to_string(cos_sin.dim(0)) + " positions");
  }
  const int64_t half = cos_sin.dim(1) / 2;
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  ParallelFor(stream, x.dim(0), x.dim(1), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const float* cos = cos_sin.Row<float>(positions[static_cast<size_t>(token)]);
      for (int head = 0; head < num_heads; ++head) {
        kernels.rotate(cos, cos + half, half, x.Row<float>(token) + int64_t{head} * head_dim);
      }
    }
  });
}

}  // namespace heddle::ops
