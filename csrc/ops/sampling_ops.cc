#include "ops/checks.h"
#include "ops/ops.h"

namespace heddle::ops {

int64_t ArgMax(CpuIsa isa, std::span<const float> row) {
  HEDDLE_CHECK(!row.empty(), "ArgMax of an empty row");
  return cpu::KernelsFor(isa).arg_max(row.data(), static_cast<int64_t>(row.size()));
}

float LogSumExp(CpuIsa isa, std::span<const float> row) {
  HEDDLE_CHECK(!row.empty(), "LogSumExp of an empty row");
  return cpu::KernelsFor(isa).log_sum_exp(row.data(), static_cast<int64_t>(row.size()));
}

float ExpAndSum(CpuIsa isa, float max, std::span<float> row) {
  return cpu::KernelsFor(isa).exp_and_sum(max, row.data(), static_cast<int64_t>(row.size()));
}

}  // namespace heddle::ops
