// Llama and Mistral: the plain decoder.
#include "models/decoder.h"
#include "models/families.h"
#include "models/model_config_parser.h"

namespace heddle {
namespace {

std::unique_ptr<CausalLM> Build(const BuildContext& context, const ModelConfig& config, int max_model_len) {
  return std::make_unique<Decoder>(context, config, DecoderOptions{}, max_model_len);
}

ModelConfig ParseLlama(const Json& config) { return ParseModelConfig(config); }

ModelConfig ParseMistral(const Json& config) {
  ModelConfig model = ParseModelConfig(config);
  // transformers' MistralConfig: a window of 4096 when the key is absent.
  ApplySlidingWindow(config, 4096, model);
  return model;
}

}  // namespace

ModelFamily LlamaFamily() { return {"LlamaForCausalLM", ParseLlama, Build, Decoder::Footprint}; }
ModelFamily MistralFamily() { return {"MistralForCausalLM", ParseMistral, Build, Decoder::Footprint}; }

}  // namespace heddle
