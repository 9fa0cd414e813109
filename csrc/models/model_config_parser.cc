#include "models/model_config_parser.h"

#include <cmath>
#include <vector>

#include "base/config_reader.h"
#include "base/error.h"
#include "base/quote.h"
#include "models/rope_config_parser.h"

namespace heddle {
namespace {

constexpr int kMaxLayers = 1000;
constexpr int kMaxHeads = 10'000;
constexpr int kMaxHeadDim = 512;  // of ops::PagedAttention
constexpr int kMaxHiddenSize = 1'000'000;
constexpr int kMaxIntermediateSize = 10'000'000;
constexpr int kMaxVocabSize = 10'000'000;
constexpr int kMaxPositions = 100'000'000;
constexpr int kDefaultWindow = 4096;  // of every family in transformers that has one by default

void RefuseOtherKindsOfModels(const ConfigReader& reader) {
  if (reader.Bool("is_encoder_decoder", false)) reader.FailUnsupported("is_encoder_decoder");
  if (!reader.Bool("is_causal", true)) reader.FailUnsupported("is_causal");
}

DType ParseDType(const ConfigReader& reader) {
  const char* key = reader.Has("dtype") ? "dtype" : "torch_dtype";
  const std::string name = reader.String(key, "float32");
  if (name == "float32") return DType::kFloat32;
  if (name == "bfloat16") return DType::kBFloat16;
  if (name == "float16") return DType::kFloat16;
  reader.FailUnsupported(key, "; the types are float32, bfloat16 and float16");
}

HiddenActivation ParseActivation(const ConfigReader& reader, const ConfigDefaults& defaults) {
  const std::string name = reader.String(defaults.activation_key, defaults.activation);
  if (name == "silu") return HiddenActivation::kSilu;
  if (name == "gelu_pytorch_tanh") return HiddenActivation::kGeluTanh;
  if (name == "gelu") return HiddenActivation::kGelu;
  reader.FailUnsupported(defaults.activation_key, "; the activations are silu, gelu_pytorch_tanh and gelu");
}

void ParseSizes(const ConfigReader& reader, const ConfigDefaults& defaults, ModelConfig& model) {
  model.vocab_size = reader.Int("vocab_size", 1, kMaxVocabSize);
  model.hidden_size = reader.Int("hidden_size", 1, kMaxHiddenSize);
  model.intermediate_size = reader.Int("intermediate_size", 1, kMaxIntermediateSize);
  model.num_layers = reader.Int("num_hidden_layers", 1, kMaxLayers);
  model.max_position_embeddings = reader.Int("max_position_embeddings", 1, kMaxPositions);

  model.num_heads = reader.Int("num_attention_heads", 1, kMaxHeads);
  model.num_kv_heads = reader.Int("num_key_value_heads", 1, kMaxHeads, model.num_heads);
  if (model.num_heads % model.num_kv_heads != 0) {
    reader.FailFormat("num_key_value_heads", "a divisor of num_attention_heads " + std::to_string(model.num_heads));
  }
  if (!reader.Has("head_dim") && defaults.head_dim == 0 && model.hidden_size % model.num_heads != 0) {
    reader.FailFormat("hidden_size", "a multiple of num_attention_heads " + std::to_string(model.num_heads) +
                                         " where there is no head_dim");
  }
  const int head_dim = defaults.head_dim > 0 ? defaults.head_dim : model.hidden_size / model.num_heads;
  model.head_dim = reader.Int("head_dim", 1, kMaxHiddenSize, head_dim);
  if (model.head_dim % 2 != 0 || model.head_dim > kMaxHeadDim) {
    throw Error(ErrorCode::kUnsupportedModel, "config.json: a head_dim of " + std::to_string(model.head_dim) +
                                                  " is not supported; it must be even and at most " +
                                                  std::to_string(kMaxHeadDim));
  }
}

std::vector<int32_t> ParseEosTokenIds(const ConfigReader& reader, int vocab_size) {
  constexpr const char* kKey = "eos_token_id";
  if (!reader.Has(kKey)) return {};
  const auto to_id = [&](const Json& json) {
    const std::optional<uint64_t> id = json.IsNumber() ? json.AsUint64() : std::nullopt;
    if (!id || *id >= static_cast<uint64_t>(vocab_size)) {
      reader.FailFormat(kKey, "one or more token ids below vocab_size " + std::to_string(vocab_size));
    }
    return static_cast<int32_t>(*id);
  };
  const Json& value = *reader.Find(kKey);
  if (!value.IsArray()) return {to_id(value)};
  std::vector<int32_t> ids;
  for (const Json& id : value.AsArray()) ids.push_back(to_id(id));
  return ids;
}

// Absent: `fallback`; null: 0, none.
int ParseWindow(const ConfigReader& reader, int fallback) {
  const Json* value = reader.Find("sliding_window");
  if (value != nullptr && value->IsNull()) return 0;
  return reader.Int("sliding_window", 1, kMaxPositions, fallback);
}

// For each layer whether it slides, or nullopt where the config does not say.
std::optional<std::vector<bool>> ParseLayerTypes(const ConfigReader& reader, int num_layers) {
  constexpr const char* kKey = "layer_types";
  if (!reader.Has(kKey)) return std::nullopt;
  const Json& value = *reader.Find(kKey);
  if (!value.IsArray() || value.AsArray().size() != static_cast<size_t>(num_layers)) {
    reader.FailFormat(kKey, "a list of " + std::to_string(num_layers) + " types, one for each layer");
  }
  std::vector<bool> slides;
  for (const Json& type : value.AsArray()) {
    if (!type.IsString()) reader.FailFormat(kKey, "a list of strings");
    const std::string& name = type.AsString();
    if (name != "full_attention" && name != "sliding_attention") {
      throw Error(ErrorCode::kUnsupportedModel, "config.json: layer_types with " + Quote(name) +
                                                    " is not supported; the types are full_attention and "
                                                    "sliding_attention");
    }
    slides.push_back(name == "sliding_attention");
  }
  return slides;
}

// Absent: `fallback`; null: 0, off.
float ParseSoftCap(const ConfigReader& reader, const char* key, double fallback) {
  const Json* value = reader.Find(key);
  if (value != nullptr && value->IsNull()) return 0;
  return static_cast<float>(reader.Number(key, 1e-3, 1e6, fallback));
}

}  // namespace

std::string ParseArchitecture(const Json& config) {
  const ConfigReader reader(config);
  const Json* names = reader.Find("architectures");
  if (names == nullptr || !names->IsArray() || names->AsArray().empty() || !names->AsArray()[0].IsString()) {
    reader.FailFormat("architectures", "a list with the name of an architecture");
  }
  return names->AsArray()[0].AsString();
}

ModelConfig ParseModelConfig(const Json& config, const ConfigDefaults& defaults) {
  const ConfigReader reader(config);
  ModelConfig model;
  model.architecture = ParseArchitecture(config);
  RefuseOtherKindsOfModels(reader);
  model.dtype = ParseDType(reader);
  ParseSizes(reader, defaults, model);

  model.rms_norm_eps = static_cast<float>(reader.Number("rms_norm_eps", 1e-30, 1.0, defaults.rms_norm_eps));
  model.activation = ParseActivation(reader, defaults);
  model.tie_word_embeddings = reader.Bool("tie_word_embeddings", defaults.tie_word_embeddings);
  model.qkv_bias = reader.Bool("attention_bias", false);
  model.o_bias = model.qkv_bias;
  model.mlp_bias = reader.Bool("mlp_bias", false);
  model.attention_scale = 1.0f / std::sqrt(static_cast<float>(model.head_dim));

  const auto num_layers = static_cast<size_t>(model.num_layers);
  model.layer_sliding_window.assign(num_layers, 0);
  model.layer_rope.assign(num_layers, 0);
  model.ropes = ParseRopes(config, defaults, model);
  model.max_positions = MaxPositions(model, defaults);
  model.eos_token_ids = ParseEosTokenIds(reader, model.vocab_size);
  return model;
}

void ApplyLayerTypes(const Json& config, int window, const std::function<bool(int layer)>& slides, ModelConfig& model) {
  const ConfigReader reader(config);
  const std::optional<std::vector<bool>> layer_types = ParseLayerTypes(reader, model.num_layers);
  for (int layer = 0; layer < model.num_layers; ++layer) {
    const auto i = static_cast<size_t>(layer);
    const bool sliding = layer_types ? (*layer_types)[i] : slides(layer);
    if (sliding && window == 0) {
      throw Error(ErrorCode::kModelFormat, "config.json: layer " + std::to_string(layer) +
                                               " has sliding attention, but sliding_window is null or switched off");
    }
    model.layer_sliding_window[i] = sliding ? window : 0;
    model.layer_rope[i] = sliding && model.ropes.size() > 1 ? 1 : 0;
  }
}

void ApplySlidingWindow(const Json& config, int default_window, ModelConfig& model) {
  const ConfigReader reader(config);
  const int window = ParseWindow(reader, default_window);
  const std::optional<std::vector<bool>> layer_types = ParseLayerTypes(reader, model.num_layers);
  if (layer_types && *layer_types != std::vector<bool>(layer_types->size(), window > 0)) {
    reader.FailUnsupported("layer_types", " for this architecture unless all layers are alike");
  }
  model.layer_sliding_window.assign(model.layer_sliding_window.size(), window);
}

void ApplyUpperSlidingWindow(const Json& config, ModelConfig& model) {
  const ConfigReader reader(config);
  const bool enabled = reader.Bool("use_sliding_window", false);
  const int window = enabled ? ParseWindow(reader, kDefaultWindow) : 0;
  const int first = reader.Int("max_window_layers", 0, kMaxPositions, 28);
  ApplyLayerTypes(
      config, window, [&](int layer) { return window > 0 && layer >= first; }, model);
}

void ApplyAlternatingSlidingWindow(const Json& config, int default_pattern, ModelConfig& model) {
  const ConfigReader reader(config);
  const int window = ParseWindow(reader, kDefaultWindow);
  const int pattern = reader.Int("sliding_window_pattern", 1, kMaxLayers, default_pattern);
  ApplyLayerTypes(
      config, window, [&](int layer) { return (layer + 1) % pattern != 0; }, model);
}

void ApplyGemmaOptions(const Json& config, double default_attention_cap, double default_final_cap, ModelConfig& model) {
  const ConfigReader reader(config);
  if (reader.Bool("use_bidirectional_attention", false)) reader.FailUnsupported("use_bidirectional_attention");
  const double scalar = reader.Number("query_pre_attn_scalar", 1e-3, 1e6, 256.0);
  model.attention_scale = static_cast<float>(1.0 / std::sqrt(scalar));
  model.attention_soft_cap = ParseSoftCap(reader, "attn_logit_softcapping", default_attention_cap);
  model.final_logit_soft_cap = ParseSoftCap(reader, "final_logit_softcapping", default_final_cap);
  model.embedding_scale = std::sqrt(static_cast<float>(model.hidden_size));
}

}  // namespace heddle
