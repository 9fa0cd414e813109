// Gemma 2 and Gemma 3 (text): norms around each branch, stored minus one; scaled embeddings; sliding and full layers
// in turn. Gemma 2 caps scores and logits; Gemma 3 has norms on heads and a RoPE setting for each kind of layer.
#include "models/decoder.h"
#include "models/families.h"
#include "models/model_config_parser.h"

namespace heddle {
namespace {

constexpr DecoderOptions kOptions{.norm_offset = 1.0f, .sandwich_norms = true};

std::unique_ptr<CausalLM> Build(const BuildContext& context, const ModelConfig& config, int max_model_len) {
  return std::make_unique<Decoder>(context, config, kOptions, max_model_len);
}

ModelFootprint Footprint(const ModelConfig& config, const TensorParallel& tp, const WeightFormats& formats,
                         DeviceType device) {
  return Decoder::Footprint(config, kOptions, tp, formats, device);
}

ConfigDefaults GemmaDefaults() {
  ConfigDefaults defaults;
  defaults.head_dim = 256;
  defaults.activation_key = "hidden_activation";
  defaults.activation = "gelu_pytorch_tanh";
  defaults.tie_word_embeddings = true;
  return defaults;
}

ModelConfig ParseGemma2(const Json& config) {
  ModelConfig model = ParseModelConfig(config, GemmaDefaults());
  ApplyGemmaOptions(config, /*default_attention_cap=*/50.0, /*default_final_cap=*/30.0, model);
  ApplyAlternatingSlidingWindow(config, /*default_pattern=*/2, model);
  return model;
}

ModelConfig ParseGemma3(const Json& config) {
  ConfigDefaults defaults = GemmaDefaults();
  defaults.rope_layout = RopeLayout::kPerLayerType;
  defaults.rope_theta = 1000000.0;
  ModelConfig model = ParseModelConfig(config, defaults);
  model.qk_norm = true;
  ApplyGemmaOptions(config, /*default_attention_cap=*/0.0, /*default_final_cap=*/0.0, model);
  ApplyAlternatingSlidingWindow(config, /*default_pattern=*/6, model);
  return model;
}

}  // namespace

ModelFamily Gemma2Family() { return {"Gemma2ForCausalLM", ParseGemma2, Build, Footprint, kOptions}; }
ModelFamily Gemma3Family() { return {"Gemma3ForCausalLM", ParseGemma3, Build, Footprint, kOptions}; }

}  // namespace heddle
