// Which form each matrix takes in memory: what the engine was asked for, applied to how the checkpoint stores it.
//
// Immutable, so thread-safe. Known from configuration alone, so that a plan and a loaded model agree.
#pragma once

#include <string>
#include <vector>

#include "base/quantization.h"
#include "loader/stored_quantization.h"
#include "tensor/matrix_format.h"

namespace heddle {

// The module that a tensor belongs to: "lm_head" of "lm_head.weight".
inline std::string ModuleOf(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

class WeightFormats {
 public:
  // `dtype` is that of float matrices; kAuto follows `stored`. A checkpoint with int8 matrices keeps its others as they
  // are; one without is quantized at load, the head's weights too.
  //
  // Fails with kInvalidArgument for sparsity in float32, which has no kernels, and for a provider of others than dense
  // LLM.int8 products of 16-bit activations.
  explicit WeightFormats(DType dtype, Quantization quantization = Quantization::kNone,
                         Sparsity sparsity = Sparsity::kNone, StoredQuantization stored = {},
                         Provider provider = Provider::kHeddle);

  // Of float matrices: of activations on GPUs too.
  DType dtype() const { return dtype_; }
  // What kAuto became; sparsity stays kAuto where only some matrices are stored so.
  Quantization quantization() const { return quantization_; }
  const StoredQuantization& stored() const { return stored_; }
  Sparsity sparsity() const { return sparsity_; }

  // Of the modules, such as "model.layers.0.self_attn.q_proj", that one product computes side by side: where they
  // differ, all are float. `columns` of the input are cut at multiples of `unit` only; unless both are multiples of
  // kSparseUnit the matrix is dense.
  MatrixFormat Linear(const std::vector<std::string>& modules, int64_t columns, int64_t unit) const;
  // Of the output head. Its input is never rounded.
  MatrixFormat Head(const std::string& module) const;

  // Of a checkpoint's file of packed weights: what else than dtype() decides its contents.
  std::string Name() const;

 private:
  DType dtype_;
  Quantization quantization_;
  Sparsity sparsity_;
  StoredQuantization stored_;
  Provider provider_;
};

}  // namespace heddle
