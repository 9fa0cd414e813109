// Small configs for the tests of the parser, and the messages of its refusals.
#pragma once

#include <map>
#include <string>

#include "loader_testing.h"
#include "models/model_config_parser.h"
#include "models/registry.h"

namespace heddle::test {

using Members = std::map<std::string, std::string>;  // key to JSON text; an empty text leaves the key out

inline Json ToJson(const Members& members) {
  std::string text = "{";
  for (const auto& [key, value] : members) {
    if (!value.empty()) text += (text.size() > 1 ? ",\"" : "\"") + key + "\":" + value;
  }
  return Json::Parse(text + "}", "config.json");
}

// A small config of that architecture with these members on top.
inline Json Config(const std::string& architecture, const Members& changes) {
  Members members = {{"architectures", "[\"" + architecture + "\"]"},
                     {"dtype", "\"bfloat16\""},
                     {"vocab_size", "512"},
                     {"hidden_size", "64"},
                     {"intermediate_size", "160"},
                     {"num_hidden_layers", "8"},
                     {"num_attention_heads", "8"},
                     {"num_key_value_heads", "4"},
                     {"head_dim", "16"},
                     {"max_position_embeddings", "2048"},
                     {"rms_norm_eps", "1e-05"},
                     {"rope_parameters", "{\"rope_theta\":10000.0,\"rope_type\":\"default\"}"}};
  for (const auto& [key, value] : changes) members[key] = value;
  return ToJson(members);
}

inline ModelConfig Parse(const Members& changes, const ConfigDefaults& defaults = {}) {
  return ParseModelConfig(Config("LlamaForCausalLM", changes), defaults);
}

inline ModelConfig ParseFamily(const std::string& architecture, const Members& changes) {
  const Json config = Config(architecture, changes);
  return FindModelFamily(config).parse_config(config);
}

// "ERR_CODE: message" of the error that these changes lead to; "" without one.
inline std::string ParseError(const Members& changes, const ConfigDefaults& defaults = {}) {
  try {
    Parse(changes, defaults);
  } catch (const Error& error) {
    return std::string(ErrorCodeName(error.code())) + ": " + error.what();
  }
  return "";
}

inline std::string FamilyError(const std::string& architecture, const Members& changes) {
  try {
    ParseFamily(architecture, changes);
  } catch (const Error& error) {
    return std::string(ErrorCodeName(error.code())) + ": " + error.what();
  }
  return "";
}

inline const std::string kFormat = "ERR_MODEL_FORMAT: config.json: ";
inline const std::string kUnsupported = "ERR_UNSUPPORTED_MODEL: config.json: ";

}  // namespace heddle::test
