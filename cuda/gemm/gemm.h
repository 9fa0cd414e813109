// Products of many rows, by cuBLASLt.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "common/stream.h"
#include "gemm/cublaslt.h"

namespace heddle::cuda {

// The end of the workspace is cuBLASLt's: 32 MiB, or half of a workspace of less than 64 MiB. What is before it, a
// multiple of 256 bytes, ops that call GemmPlans may use.
int64_t BytesBeforeGemmWorkspace(const HeddleCudaStream& stream);

// A stream's handle of cuBLASLt and the algorithms that were chosen on it, by shape, types and strides. Numbers of rows
// share an algorithm up to the next power of two, or three quarters of it.
class GemmPlans {
 public:
  // The stream's plans, made at the first call. Fails as CublasLt does.
  static GemmPlans& Of(HeddleCudaStream& stream);

  GemmPlans();

  // y = x * weight^T (+ bias), with float32 sums, rounded once. Of arguments that were checked, with a dense weight of
  // T, at least one row, column and output; a bias only where y is float32. False, and nothing was launched, when
  // cuBLASLt has no algorithm.
  //
  // The first call for a shape tries the candidates on the op's own matrices and waits for the device; it may write to
  // all of the workspace. In a capture it takes the first candidate, and a later call outside tries them.
  bool Multiply(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);

 private:
  struct Plan {
    enum class State { kNew, kNone, kGuessed, kMeasured };
    State state = State::kNew;
    cublasLtMatmulAlgo_t algorithm{};
  };
  class Problem;

  Plan& PlanFor(const HeddleCudaStream& stream, const Problem& problem, int64_t rows);
  cublasStatus_t Run(const HeddleCudaStream& stream, const Problem& problem, const cublasLtMatmulAlgo_t& algorithm);
  Plan Choose(const HeddleCudaStream& stream, const Problem& problem);
  float Seconds(const HeddleCudaStream& stream, const Problem& problem, const cublasLtMatmulAlgo_t& algorithm);
  // What it costs on top as a part of a graph: without end where it cannot be.
  float SecondsInGraph(const HeddleCudaStream& stream, const Problem& problem, const cublasLtMatmulAlgo_t& algorithm);

  CublasLtHandle handle_;
  std::map<std::array<int64_t, 9>, Plan> plans_;
};

}  // namespace heddle::cuda
