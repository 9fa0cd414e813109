// How a checkpoint stores its matrices: what quantization_config (or compression_config) of config.json says.
//
// Read are 8-bit bitsandbytes (LLM.int8) and compressed-tensors: symmetric int8 by rows or by whole matrices, with or
// without dynamic activations for each token, 2:4 sparsity as sparse-24-bitmask, and both together.
#pragma once

#include <string>

#include "base/json.h"
#include "loader/module_list.h"

namespace heddle {

// How its authors mean products with an int8 matrix to be computed.
enum class QuantizationScheme {
  kNone,     // no matrix is int8
  kInt8,     // weight-only
  kW8A8,     // activations become int8 too, each token by its own scale
  kLlmInt8,  // as kW8A8, but for outliers among the activations
};

// How an int8 matrix X [n, k] lies in the file.
enum class Int8Layout {
  kBitsAndBytes,  // X.weight, X.SCB f32 [n]: scale * 127; X.weight_format, if there, says row-major
  kPlain,         // X.weight, X.weight_scale
  kPacked,        // X.weight_packed, four elements + 128 in an int32, the first in the lowest byte; X.weight_scale;
                  // X.weight_shape
};

struct StoredQuantization {
  std::string key;  // of config.json, for messages; empty when it has none
  QuantizationScheme scheme = QuantizationScheme::kNone;
  Int8Layout layout = Int8Layout::kPlain;
  bool tensor_scales = false;      // one scale a matrix instead of one a row
  float outlier_threshold = 6.0f;  // of kLlmInt8: activations that reach it are outliers; 0: none are
  bool sparse_24 = false;          // whether there are sparse matrices
  ModuleList quantized;
  ModuleList not_quantized;
  ModuleList sparse;
  ModuleList not_sparse;

  // Whether the matrix of this module, e.g. "model.layers.0.self_attn.q_proj", is int8. Only Linear modules are.
  bool IsQuantized(const std::string& module) const;
  // Whether it is stored as a bitmask and the elements that are not zero. It may be int8 as well.
  bool IsSparse(const std::string& module) const;
};

// `config` is config.json. Fails with kModelFormat, or kUnsupportedModel for what is not read, naming key, expectation
// and value.
StoredQuantization ParseStoredQuantization(const Json& config);

}  // namespace heddle
