// Llama and Mistral: the plain decoder.
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

ModelConfig ParseLlama(const Json& config) { return ParseModelConfig(config); }

ModelConfig ParseMistral(const Json& config) {
  ModelConfig model = ParseModelConfig(config);
  // transformers' MistralConfig: a window of 4096 when the key is absent.
  ApplySlidingWindow(config, 4096, model);
  return model;
}

}  // namespace

ModelFamily LlamaFamily() { return {"LlamaForCausalLM", ParseLlama, Build, Footprint}; }
ModelFamily MistralFamily() { return {"MistralForCausalLM", ParseMistral, Build, Footprint}; }

}  // namespace heddle
