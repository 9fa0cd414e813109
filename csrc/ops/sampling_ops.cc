#include "ops/checks.h"
#include "ops/ops.h"

namespace heddle::ops {

int64_t ArgMax(Stream& stream, std::span<const float> row) {
  const OpTimer timer(stream);
  HEDDLE_CHECK(!row.empty(), "ArgMax of an empty row");
  return cpu::KernelsFor(stream.isa()).arg_max(row.data(), static_cast<int64_t>(row.size()));
}

float LogSumExp(Stream& stream, std::span<const float> row) {
  const OpTimer timer(stream);
  HEDDLE_CHECK(!row.empty(), "LogSumExp of an empty row");
  return cpu::KernelsFor(stream.isa()).log_sum_exp(row.data(), static_cast<int64_t>(row.size()));
}

float ExpAndSum(Stream& stream, float max, std::span<float> row) {
  const OpTimer timer(stream);
  return cpu::KernelsFor(stream.isa()).exp_and_sum(max, row.data(), static_cast<int64_t>(row.size()));
}

}  // namespace heddle::ops
