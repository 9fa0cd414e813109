// Qwen2 (biases on q, k and v) and Qwen3 (norms on the heads of q and k instead).
#include "models/decoder.h"
#include "models/families.h"
#include "models/model_config_parser.h"

namespace heddle {
namespace {

constexpr DecoderOptions kOptions;

std::unique_ptr<CausalLM> Build(const BuildContext& context, const ModelConfig& config, int max_model_len) {
  return std::make_unique<Decoder>(context, config, kOptions, max_model_len);
}

ModelFootprint Footprint(const ModelConfig& config, const TensorParallel& tp, const WeightFormats& formats,
                         DeviceType device) {
  return Decoder::Footprint(config, kOptions, tp, formats, device);
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

ModelFamily Qwen2Family() { return {"Qwen2ForCausalLM", ParseQwen2, Build, Footprint}; }
ModelFamily Qwen3Family() { return {"Qwen3ForCausalLM", ParseQwen3, Build, Footprint}; }

}  // namespace heddle
