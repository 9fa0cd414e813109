#include <cstring>

#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"

namespace heddle::ops {

void GatherRows(Stream& stream, const TensorView& x, std::span<const int32_t> rows, const TensorView& y) {
  const OpTimer timer(stream);
  CheckRank("GatherRows: x", x, 2);
  CheckView("GatherRows: y", y, x.dtype, {static_cast<int64_t>(rows.size()), x.dim(1)});
  if (stream.cuda() != nullptr) return cuda::GatherRows(stream, x, rows, y);
  for (size_t i = 0; i < rows.size(); ++i) {
    HEDDLE_CHECK(rows[i] >= 0 && rows[i] < x.dim(0), "row " + std::to_string(rows[i]) + " of " + x.shape.ToString());
    std::memcpy(y.Row<float>(static_cast<int64_t>(i)), x.Row<float>(rows[i]),
                static_cast<size_t>(x.dim(1)) * sizeof(float));
  }
}

}  // namespace heddle::ops
