// SparseGPT (Frantar and Alistarh, 2023): 2:4 pruning that moves what pruned weights did to those that come after them
// in their row, by the second moments of the layer's inputs.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "device/stream.h"
#include "tensor/tensor.h"

namespace heddle {

// What pruning a layer takes of its inputs, the same for all matrices that share them: the upper triangular factor of
// the inverse Hessian.
class HessianFactor {
 public:
  // `hessian` [n, n] f32, sum of x x^T over inputs x, on and below its diagonal; changed. 1 % of its mean diagonal
  // is added, and more as long as it has no inverse. Inputs that were always zero weigh nothing. Fails with
  // kModelFormat, naming `layer`, where inputs were not finite, and with kCancelled.
  HessianFactor(Stream& stream, const Tensor& hessian, const std::string& layer, const std::atomic<bool>& cancelled);

  const TensorView& view() const { return factor_; }
  bool IsDead(int64_t column) const { return dead_[static_cast<size_t>(column)]; }

  // Memory that constructing takes, the Hessian included.
  static int64_t SizeBytes(int64_t columns);

 private:
  Tensor factor_;
  std::vector<bool> dead_;
};

// Prunes weights [rows, columns] f32 in place. Which two of four neighbours go is decided when the first of them is
// reached, after all that came before has been made up for. Fails with kCancelled. REQUIRES: columns is a multiple
// of 4.
void PruneSparseGpt(Stream& stream, const HessianFactor& factor, const TensorView& weights,
                    const std::atomic<bool>& cancelled);

}  // namespace heddle
