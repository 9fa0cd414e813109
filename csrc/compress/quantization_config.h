// The quantization_config of config.json, as llm-compressor writes it.
#pragma once

#include <string>
#include <vector>

#include "compress/compression.h"

namespace heddle {

// What becomes of a checkpoint's linear layers.
struct QuantizationSummary {
  CompressionScheme scheme = CompressionScheme::kNone;
  std::string format;                      // of quantised weights: "pack-quantized" or "int-quantized"
  std::vector<std::string> not_quantised;  // linear layers, routers and the head among them
  bool sparse = false;                     // some are stored 2:4
  std::vector<std::string> not_sparse;
  double sparsity = 0;  // zeros of all weights, a fraction
};

// The text of a JSON object, indented to stand in one.
std::string QuantizationConfig(const QuantizationSummary& summary);

}  // namespace heddle
