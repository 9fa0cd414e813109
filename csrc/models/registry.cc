#include "models/registry.h"

#include "models/families.h"
#include "models/model_config_parser.h"

namespace heddle {
namespace {

const std::vector<ModelFamily>& Families() {
  // Never destroyed: process.exit() ends the process beside running engines, which hold pointers into it.
  static const auto& families = *new std::vector<ModelFamily>{
      LlamaFamily(),  // Llama 2, Llama 3.x, DeepSeek-LLM, TinyLlama and others of that shape
      MistralFamily(),
      Qwen2Family(),  // Qwen2, Qwen2.5
      Qwen3Family(),   Gemma2Family(),
      Gemma3Family(),  // text
      Phi3Family(),    // Phi-3, Phi-3.5 mini, Phi-4
  };
  return families;
}

}  // namespace

const ModelFamily& FindModelFamily(const Json& config) {
  const std::string architecture = ParseArchitecture(config);
  std::string known;
  for (const ModelFamily& family : Families()) {
    if (architecture == family.architecture) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  }
  throw Error(ErrorCode::kUnsupportedModel,
              "config.json: architectures[0] must be one of " + known + ", received \"" + architecture + "\"");
}

}  // namespace heddle
