#include "loader/stored_quantization.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "base/config_reader.h"
#include "base/error.h"
#include "base/quote.h"

namespace heddle {
namespace {

// An object of config.json, its name and its reader.
struct Section {
  Section(const Json& object, std::string section_name)
      : json(object), name(std::move(section_name)), reader(object, name + ".") {}

  std::string Where(const std::string& key) const { return "config.json: " + name + "." + key; }

  // A key that we do not know may change what the others mean.
  void AllowOnly(std::initializer_list<std::string_view> keys, std::string_view prefix = {}) const {
    for (const auto& [key, value] : json.AsObject()) {
      if (!prefix.empty() && key.starts_with(prefix)) continue;
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
      throw Error(ErrorCode::kUnsupportedModel,
                  "config.json: " + name + " with the key " + Quote(key) + " is not supported");
    }
  }

  std::optional<Section> Find(const std::string& key) const {
    const Json* object = reader.Object(key);
    if (object == nullptr) return std::nullopt;
    return Section(*object, name + "." + key);
  }

  // A key whose only value that we read is absent, null or an empty object.
  void RefuseUnlessEmpty(const std::string& key) const {
    if (reader.Has(key) && !(reader.Find(key)->IsObject() && reader.Find(key)->AsObject().empty())) {
      reader.FailUnsupported(key);
    }
  }

  const Json& json;
  std::string name;
  ConfigReader reader;
};

// -- bitsandbytes --

StoredQuantization ParseBitsAndBytes(const Section& section) {
  section.AllowOnly(
      {"quant_method", "load_in_8bit", "load_in_4bit", "_load_in_8bit", "_load_in_4bit", "llm_int8_threshold",
       "llm_int8_skip_modules", "llm_int8_has_fp16_weight", "llm_int8_enable_fp32_cpu_offload"},
      "bnb_4bit_");
  const ConfigReader& reader = section.reader;
  if (reader.Bool("load_in_4bit", false)) reader.FailUnsupported("load_in_4bit", "; bitsandbytes is read in 8 bits");
  if (!reader.Bool("load_in_8bit", false)) reader.FailFormat("load_in_8bit", "true");
  if (reader.Bool("llm_int8_has_fp16_weight", false)) reader.FailUnsupported("llm_int8_has_fp16_weight");

  constexpr const char* kSkip = "llm_int8_skip_modules";
  StoredQuantization stored;
  stored.scheme = QuantizationScheme::kLlmInt8;
  stored.layout = Int8Layout::kBitsAndBytes;
  stored.outlier_threshold = static_cast<float>(reader.Number("llm_int8_threshold", 0, 1e6, 6.0));
  stored.quantized = ModuleList::OfTargets({"Linear"}, section.name);
  stored.not_quantized = ModuleList::OfSkipped(
      reader.Has(kSkip) ? reader.Strings(kSkip) : std::vector<std::string>{"lm_head"}, section.Where(kSkip));
  return stored;
}

// -- compressed-tensors --

// What of a group of modules the others must agree on.
struct Group {
  QuantizationScheme scheme = QuantizationScheme::kInt8;
  Int8Layout layout = Int8Layout::kPlain;
  bool tensor_scales = false;

  bool operator==(const Group&) const = default;
};

Int8Layout ParseFormat(const ConfigReader& reader) {
  const std::string format = reader.String("format");
  if (format == "int-quantized" || format == "naive-quantized") return Int8Layout::kPlain;
  if (format == "pack-quantized") return Int8Layout::kPacked;
  reader.FailUnsupported("format", "; the formats are int-quantized, naive-quantized and pack-quantized");
}

// What weights and activations have in common. Observers and dtypes of scales tell how it came about.
void CheckInt8(const Section& section) {
  section.AllowOnly({"num_bits", "type", "symmetric", "strategy", "group_size", "block_structure", "dynamic",
                     "actorder", "observer", "observer_kwargs", "scale_dtype", "zp_dtype"});
  const ConfigReader& reader = section.reader;
  if (reader.Int("num_bits", 1, 64, 8) != 8) reader.FailUnsupported("num_bits", "; 8 is");
  if (reader.String("type", "int") != "int") reader.FailUnsupported("type", "; int is");
  if (!reader.Bool("symmetric", true)) reader.FailUnsupported("symmetric", "; true is");
  if (reader.Has("block_structure")) reader.FailUnsupported("block_structure");
}

// The order of columns in which GPTQ rounded them; "weight" leaves it in no trace.
void CheckActivationOrder(const ConfigReader& reader) {
  const Json* order = reader.Has("actorder") ? reader.Find("actorder") : nullptr;
  if (order == nullptr || (order->IsBool() && !order->AsBool())) return;
  if (order->IsString() && (order->AsString() == "weight" || order->AsString() == "static")) return;
  reader.FailUnsupported("actorder", "; null and \"weight\" are");
}

// Whether there is one scale for the whole matrix, not one for each row.
bool ParseWeightStrategy(const ConfigReader& reader) {
  const bool has_group_size = reader.Has("group_size");
  if (has_group_size && reader.Number("group_size", -1, 1e9) != -1) {
    reader.FailUnsupported("group_size", "; null and -1 are");
  }
  const std::string strategy = reader.String("strategy", has_group_size ? "channel" : "tensor");
  if (strategy != "channel" && strategy != "tensor") {
    reader.FailUnsupported("strategy", "; the strategies of weights are channel and tensor");
  }
  return strategy == "tensor";
}

Group ParseGroup(const Section& section, const ConfigReader& top) {
  section.AllowOnly({"targets", "weights", "input_activations", "output_activations", "format"});
  Group group;
  group.layout = ParseFormat(section.reader.Has("format") ? section.reader : top);
  const std::optional<Section> weights = section.Find("weights");
  if (!weights) section.reader.FailFormat("weights", "an object");
  CheckInt8(*weights);
  CheckActivationOrder(weights->reader);
  if (weights->reader.Bool("dynamic", false)) weights->reader.FailUnsupported("dynamic", "; false is");
  group.tensor_scales = ParseWeightStrategy(weights->reader);

  section.RefuseUnlessEmpty("output_activations");
  const std::optional<Section> inputs = section.Find("input_activations");
  if (!inputs) return group;
  CheckInt8(*inputs);
  if (!inputs->reader.Bool("dynamic", false)) {
    throw Error(ErrorCode::kUnsupportedModel,
                inputs->Where("dynamic") + " must be true: static activations are not supported");
  }
  if (inputs->reader.String("strategy") != "token") {
    inputs->reader.FailUnsupported("strategy", "; the strategy of activations is token");
  }
  group.scheme = QuantizationScheme::kW8A8;
  return group;
}

// REQUIRES: a group.
void ParseGroups(const Section& section, const Json& groups, StoredQuantization& stored) {
  if (section.reader.String("quantization_status", "compressed") != "compressed") {
    section.reader.FailUnsupported("quantization_status", "; compressed is");
  }
  std::vector<Group> parsed;
  std::vector<std::string> targets;
  for (const auto& [name, value] : groups.AsObject()) {
    const Section group(value, section.name + ".config_groups[" + Quote(name) + "]");
    parsed.push_back(ParseGroup(group, section.reader));
    if (parsed.back() != parsed.front()) {
      throw Error(ErrorCode::kUnsupportedModel, section.Where("config_groups") +
                                                    " with groups of different schemes is not supported, as " +
                                                    Quote(name) + " differs from the first");
    }
    if (!group.reader.Has("targets")) group.reader.FailFormat("targets", "a list of strings");
    for (std::string& target : group.reader.Strings("targets")) targets.push_back(std::move(target));
  }
  stored.scheme = parsed.front().scheme;
  stored.layout = parsed.front().layout;
  stored.tensor_scales = parsed.front().tensor_scales;
  stored.quantized = ModuleList::OfTargets(targets, section.Where("config_groups"));
  stored.not_quantized = ModuleList::OfTargets(section.reader.Strings("ignore"), section.Where("ignore"));
}

void ParseSparsity(const Section& section, StoredQuantization& stored) {
  section.AllowOnly(
      {"format", "targets", "ignore", "global_sparsity", "sparsity_structure", "registry_requires_subclass"});
  const ConfigReader& reader = section.reader;
  const std::string format = reader.String("format");
  if (format == "dense") return;  // zeros and all
  if (format != "sparse-24-bitmask") {
    reader.FailUnsupported("format", "; the formats are sparse-24-bitmask and dense");
  }
  if (reader.String("sparsity_structure", "2:4") != "2:4") {
    reader.FailUnsupported("sparsity_structure", "; 2:4 is");
  }
  stored.sparse_24 = true;
  stored.sparse = ModuleList::OfTargets(
      reader.Has("targets") ? reader.Strings("targets") : std::vector<std::string>{"Linear"}, section.Where("targets"));
  stored.not_sparse = ModuleList::OfTargets(reader.Strings("ignore"), section.Where("ignore"));
}

StoredQuantization ParseCompressedTensors(const Section& section) {
  section.AllowOnly({"quant_method", "version", "config_groups", "format", "quantization_status", "ignore",
                     "kv_cache_scheme", "global_compression_ratio", "run_compressed", "sparsity_config",
                     "transform_config"});
  section.RefuseUnlessEmpty("kv_cache_scheme");
  section.RefuseUnlessEmpty("transform_config");
  StoredQuantization stored;
  const Json* groups = section.reader.Object("config_groups");
  const bool has_groups = groups != nullptr && !groups->AsObject().empty();
  const std::optional<Section> sparsity = section.Find("sparsity_config");
  const bool has_sparsity = sparsity && !sparsity->json.AsObject().empty();
  if (!has_groups && !has_sparsity) section.reader.FailFormat("config_groups", "an object with at least one group");
  if (has_groups) ParseGroups(section, *groups, stored);
  if (has_sparsity) ParseSparsity(*sparsity, stored);
  if (has_groups && stored.sparse_24 && stored.layout == Int8Layout::kPacked) {
    throw Error(ErrorCode::kUnsupportedModel,
                "config.json: " + section.name + " with pack-quantized and sparse-24-bitmask is not supported");
  }
  return stored;
}

// Modules of a decoder are, but for embeddings and norms.
bool IsLinear(const std::string& module) {
  return !module.ends_with("norm") && module != "embed_tokens" && !module.ends_with(".embed_tokens");
}

}  // namespace

bool StoredQuantization::IsQuantized(const std::string& module) const {
  return scheme != QuantizationScheme::kNone && IsLinear(module) && quantized.Contains(module) &&
         !not_quantized.Contains(module);
}

bool StoredQuantization::IsSparse(const std::string& module) const {
  return sparse_24 && IsLinear(module) && sparse.Contains(module) && !not_sparse.Contains(module);
}

StoredQuantization ParseStoredQuantization(const Json& config) {
  constexpr const char* kQuantization = "quantization_config";
  constexpr const char* kCompression = "compression_config";
  const ConfigReader reader(config);
  const bool is_quantization = reader.Has(kQuantization);
  if (is_quantization && reader.Has(kCompression)) {
    throw Error(ErrorCode::kModelFormat, "config.json: must have quantization_config or compression_config, not both");
  }
  const std::string key = is_quantization ? kQuantization : kCompression;
  const Json* object = reader.Object(key);
  if (object == nullptr) return {};
  const Section section(*object, key);
  // Early releases of both wrote no method.
  const bool is_early_bitsandbytes = section.reader.Has("load_in_8bit") || section.reader.Has("load_in_4bit");
  std::optional<std::string> method;
  if (is_early_bitsandbytes) method = "bitsandbytes";
  if (!is_quantization) method = "compressed-tensors";
  method = section.reader.String("quant_method", method);

  StoredQuantization stored;
  if (method == "bitsandbytes") {
    stored = ParseBitsAndBytes(section);
  } else if (method == "compressed-tensors") {
    stored = ParseCompressedTensors(section);
  } else {
    section.reader.FailUnsupported("quant_method", "; the methods are bitsandbytes and compressed-tensors");
  }
  stored.key = key;
  return stored;
}

}  // namespace heddle
