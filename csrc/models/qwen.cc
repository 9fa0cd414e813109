// Qwen2 (biases on q, k and v) and Qwen3 (norms on the heads of q and k instead).
#include "models/decoder.h"
#include "models/families.h"
#include "models/model_config_parser.h"

namespace heddle {
namespace {

std::unique_ptr<CausalLM> Build(const BuildContext& context, const ModelConfig& config, int max_model_len) {
  return std::make_unique<Decoder>(context, config, DecoderOptions{}, max_model_len);
}

ModelConfig ParseQwen2(const Json& config) {
  ModelConfig model = ParseModelConfig(config);
  model.qkv_bias = true;
  model.o_bias = false;
  ApplyUpperSlidingWindow(config, model);
  return model;
}

ModelConfig ParseQwen3(const Json& config) {
  ConfigDefaults defaults;
  defaults.head_dim = 128;
  ModelConfig model = ParseModelConfig(config, defaults);
  model.qk_norm = true;
  ApplyUpperSlidingWindow(config, model);
  return model;
}

}  // namespace

ModelFamily Qwen2Family() { return {"Qwen2ForCausalLM", ParseQwen2, Build, Decoder::Footprint}; }
ModelFamily Qwen3Family() { return {"Qwen3ForCausalLM", ParseQwen3, Build, Decoder::Footprint}; }

}  // namespace heddle
