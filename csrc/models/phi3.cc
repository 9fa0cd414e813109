// Phi-3: the plain decoder with fused projections in the checkpoint, and RoPE on a part of each head.
#include "models/decoder.h"
#include "models/families.h"
#include "models/model_config_parser.h"

namespace heddle {
namespace {

constexpr DecoderOptions kOptions{.fused_weights = true};

std::unique_ptr<CausalLM> Build(const BuildContext& context, const ModelConfig& config, int max_model_len) {
  return std::make_unique<Decoder>(context, config, kOptions, max_model_len);
}

ModelFootprint Footprint(const ModelConfig& config, const TensorParallel& tp, const WeightFormats& formats,
                         DeviceType device) {
  return Decoder::Footprint(config, kOptions, tp, formats, device);
}

ModelConfig ParsePhi3(const Json& config) {
  ConfigDefaults defaults;
  defaults.rms_norm_eps = 1e-5;
  defaults.partial_rotary = true;
  defaults.rope_scaling = false;  // what it calls yarn is a scheme of its own
  ModelConfig model = ParseModelConfig(config, defaults);
  ApplySlidingWindow(config, 0, model);
  return model;
}

}  // namespace

ModelFamily Phi3Family() { return {"Phi3ForCausalLM", ParsePhi3, Build, Footprint, kOptions}; }

}  // namespace heddle
