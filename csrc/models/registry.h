// Which architectures exist. Adding one takes its file and its line in registry.cc.
#pragma once

#include <memory>

#include "base/device_type.h"
#include "base/json.h"
#include "models/causal_lm.h"
#include "models/decoder_weights.h"

namespace heddle {

struct ModelFamily {
  const char* architecture;  // as in config.json, e.g. "LlamaForCausalLM"
  // Fails with kModelFormat or kUnsupportedModel, by key and value.
  ModelConfig (*parse_config)(const Json& config);
  std::unique_ptr<CausalLM> (*build)(const BuildContext& context, const ModelConfig& config, int max_model_len);
  ModelFootprint (*footprint)(const ModelConfig& config, const TensorParallel& tp, const WeightFormats& formats,
                              DeviceType device);
  DecoderOptions options = {};  // with DecoderWeights: how its weights are stored
};

// The family of config["architectures"][0]. Fails with kUnsupportedModel naming it and those there are.
const ModelFamily& FindModelFamily(const Json& config);

}  // namespace heddle
