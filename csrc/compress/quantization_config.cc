#include "compress/quantization_config.h"

#include "compress/json_text.h"

namespace heddle {
namespace {

// Of compressed-tensors, whose formats these are.
constexpr const char* kFormatVersion = "0.12.2";

using Members = std::vector<std::pair<std::string, std::string>>;

std::string Object(const Members& members, int depth) {
  if (members.empty()) return "{}";
  const std::string indent(2 * static_cast<size_t>(depth), ' ');
  std::string text;
  for (const auto& [key, value] : members) {
    text += text.empty() ? "{\n" : ",\n";
    text.append(indent).append("  ").append(JsonString(key)).append(": ").append(value);
  }
  return text + "\n" + indent + "}";
}

std::string List(const std::vector<std::string>& strings) {
  std::string text;
  for (const std::string& string : strings) text += (text.empty() ? "" : ", ") + JsonString(string);
  return "[" + text + "]";
}

// 8 bits, symmetric; a scale a token, found while computing, or a scale an output channel.
std::string Scheme(bool dynamic, int depth) {
  return Object({{"actorder", "null"},
                 {"block_structure", "null"},
                 {"dynamic", dynamic ? "true" : "false"},
                 {"group_size", "null"},
                 {"num_bits", "8"},
                 {"observer", dynamic ? "null" : JsonString("minmax")},
                 {"observer_kwargs", "{}"},
                 {"strategy", JsonString(dynamic ? "token" : "channel")},
                 {"symmetric", "true"},
                 {"type", JsonString("int")}},
                depth);
}

}  // namespace

std::string QuantizationConfig(const QuantizationSummary& summary) {
  Members members;
  if (summary.scheme != CompressionScheme::kNone) {
    const bool activations = summary.scheme == CompressionScheme::kW8A8;
    const std::string group = Object({{"format", JsonString(summary.format)},
                                      {"input_activations", activations ? Scheme(true, 4) : "null"},
                                      {"output_activations", "null"},
                                      {"targets", List({"Linear"})},
                                      {"weights", Scheme(false, 4)}},
                                     3);
    members = {{"config_groups", Object({{"group_0", group}}, 2)},
               {"format", JsonString(summary.format)},
               {"global_compression_ratio", "null"},
               {"ignore", List(summary.not_quantised)},
               {"kv_cache_scheme", "null"}};
  }
  members.emplace_back("quant_method", JsonString("compressed-tensors"));
  if (summary.scheme != CompressionScheme::kNone) {
    members.emplace_back("quantization_status", JsonString("compressed"));
  }
  Members sparsity;
  if (summary.sparse) {
    sparsity = {{"format", JsonString("sparse-24-bitmask")}, {"global_sparsity", std::to_string(summary.sparsity)},
                {"ignore", List(summary.not_sparse)},        {"registry_requires_subclass", "false"},
                {"sparsity_structure", JsonString("2:4")},   {"targets", List({"Linear"})}};
  }
  members.emplace_back("sparsity_config", Object(sparsity, 2));
  members.emplace_back("transform_config", "{}");
  members.emplace_back("version", JsonString(kFormatVersion));
  return Object(members, 1);
}

}  // namespace heddle
