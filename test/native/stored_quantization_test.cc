#include "loader/stored_quantization.h"

#include "loader_testing.h"
#include "test.h"

namespace heddle {
namespace {

StoredQuantization Parse(const std::string& config) {
  return ParseStoredQuantization(Json::Parse(config, "config.json"));
}

// The code and message of the failure; "" when it is read.
std::string ConfigError(const std::string& config) {
  try {
    Parse(config);
  } catch (const Error& error) {
    return std::string(ErrorCodeName(error.code())) + " " + error.what();
  }
  return "";
}

const std::string kFormat = "ERR_MODEL_FORMAT config.json: ";
const std::string kUnsupported = "ERR_UNSUPPORTED_MODEL config.json: ";

std::string BitsAndBytes(const std::string& more = "") {
  return "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true" + more + "}}";
}

std::string CompressedTensors(const std::string& members) {
  return "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"," + members + "}}";
}

// `weights` and `more` are members of the group's weights and of the group.
std::string OneGroup(const std::string& weights, const std::string& more = "",
                     const std::string& format = "\"format\":\"int-quantized\"") {
  return CompressedTensors(format + ",\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{" +
                           weights + "}" + more + "}}");
}

const std::string kInt8 = "\"num_bits\":8,\"type\":\"int\",\"symmetric\":true,\"strategy\":\"channel\"";
const std::string kToken =
    ",\"input_activations\":{\"num_bits\":8,\"type\":\"int\",\"symmetric\":true,\"strategy\":\"token\",\"dynamic\":"
    "true}";

const std::string kQProj = "model.layers.1.self_attn.q_proj";

TEST(StoredQuantization, "is none where config.json has none") {
  for (const char* config : {"{}", "{\"quantization_config\":null}", "{\"compression_config\":null}"}) {
    const StoredQuantization stored = Parse(config);
    EXPECT_TRUE(stored.scheme == QuantizationScheme::kNone && !stored.sparse_24 && stored.key.empty());
    EXPECT_TRUE(!stored.IsQuantized(kQProj) && !stored.IsSparse(kQProj));
  }
}

TEST(StoredQuantization, "of bitsandbytes is LLM.int8 of every Linear module but the head") {
  const StoredQuantization stored = Parse(BitsAndBytes());
  EXPECT_TRUE(stored.scheme == QuantizationScheme::kLlmInt8 && stored.layout == Int8Layout::kBitsAndBytes);
  EXPECT_EQ(stored.outlier_threshold, 6.0f);
  EXPECT_EQ(stored.key, std::string("quantization_config"));
  EXPECT_TRUE(stored.IsQuantized(kQProj) && stored.IsQuantized("model.layers.11.mlp.gate_up_proj"));
  EXPECT_TRUE(!stored.IsQuantized("lm_head") && !stored.IsQuantized("model.embed_tokens"));
  EXPECT_TRUE(!stored.IsQuantized("model.norm") && !stored.IsQuantized("model.layers.0.input_layernorm"));
  EXPECT_TRUE(!stored.IsSparse(kQProj));
}

TEST(StoredQuantization, "of bitsandbytes follows threshold and skip list") {
  const StoredQuantization stored =
      Parse(BitsAndBytes(",\"llm_int8_threshold\":0,\"bnb_4bit_quant_type\":\"fp4\",\"llm_int8_skip_modules\":"
                         "[\"model.layers.0.mlp\",\"k_proj\",\"model.layers.2.self_attn.v_proj\"]"));
  EXPECT_EQ(stored.outlier_threshold, 0.0f);
  EXPECT_TRUE(!stored.IsQuantized("model.layers.0.mlp.up_proj") &&
              !stored.IsQuantized("model.layers.3.self_attn.k_proj"));
  EXPECT_TRUE(!stored.IsQuantized("model.layers.2.self_attn.v_proj"));
  EXPECT_TRUE(stored.IsQuantized("lm_head") && stored.IsQuantized(kQProj));
  EXPECT_TRUE(stored.IsQuantized("model.layers.1.mlp.up_proj") &&
              stored.IsQuantized("model.layers.1.self_attn.v_proj"));
}

TEST(StoredQuantization, "of bitsandbytes in 4 bits, in float16 or with keys we do not know is refused") {
  const std::string key = "quantization_config.";
  EXPECT_CONTAINS(ConfigError("{\"quantization_config\":{\"load_in_4bit\":true}}"),
                  kUnsupported + key + "load_in_4bit true is not supported; bitsandbytes is read in 8 bits");
  EXPECT_CONTAINS(ConfigError("{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}"),
                  kFormat + key + "load_in_8bit is missing, expected true");
  EXPECT_CONTAINS(ConfigError(BitsAndBytes(",\"llm_int8_has_fp16_weight\":true")),
                  kUnsupported + key + "llm_int8_has_fp16_weight true");
  EXPECT_CONTAINS(ConfigError(BitsAndBytes(",\"llm_int8_threshold\":-1")),
                  kFormat + key + "llm_int8_threshold must be");
  EXPECT_CONTAINS(ConfigError(BitsAndBytes(",\"llm_int8_skip_modules\":[1]")),
                  kFormat + key + "llm_int8_skip_modules must be a list of strings, received a list");
  EXPECT_CONTAINS(ConfigError(BitsAndBytes(",\"x\\n\":1")),
                  kUnsupported + "quantization_config with the key \"x\\u000a\" is not supported");
}

TEST(StoredQuantization, "of another method is refused by name") {
  EXPECT_CONTAINS(ConfigError("{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8}}"),
                  kUnsupported +
                      "quantization_config.quant_method \"gptq\" is not supported; the methods are bitsandbytes "
                      "and compressed-tensors");
  EXPECT_CONTAINS(ConfigError("{\"quantization_config\":{}}"),
                  kFormat + "quantization_config.quant_method is missing, expected a string");
  EXPECT_CONTAINS(ConfigError("{\"quantization_config\":\"int8\"}"), kFormat + "quantization_config must be an object");
  EXPECT_CONTAINS(ConfigError("{\"compression_config\":{\"quant_method\":\"x\"}}"),
                  kUnsupported + "compression_config.quant_method \"x\"");
  EXPECT_CONTAINS(ConfigError("{\"compression_config\":{\"a\":1},\"quantization_config\":{\"a\":1}}"),
                  kFormat + "must have quantization_config or compression_config, not both");
}

TEST(StoredQuantization, "of compressed-tensors is weight-only or W8A8 by its activations") {
  const StoredQuantization weight_only = Parse(OneGroup(kInt8));
  EXPECT_TRUE(weight_only.scheme == QuantizationScheme::kInt8 && weight_only.layout == Int8Layout::kPlain);
  EXPECT_TRUE(!weight_only.tensor_scales && !weight_only.sparse_24);
  EXPECT_TRUE(weight_only.IsQuantized(kQProj) && weight_only.IsQuantized("lm_head"));
  EXPECT_TRUE(!weight_only.IsQuantized("model.embed_tokens"));
  EXPECT_TRUE(Parse(OneGroup(kInt8, kToken)).scheme == QuantizationScheme::kW8A8);
  EXPECT_TRUE(Parse(OneGroup(kInt8, ",\"input_activations\":null")).scheme == QuantizationScheme::kInt8);
  EXPECT_TRUE(Parse("{\"compression_config\":{\"format\":\"naive-quantized\",\"config_groups\":{\"a\":{\"targets\":"
                    "[\"Linear\"],\"weights\":{\"strategy\":\"tensor\"}}}}}")
                  .tensor_scales);
}

TEST(StoredQuantization, "of compressed-tensors takes everything that releases write for such a scheme") {
  const StoredQuantization stored = Parse(CompressedTensors(
      "\"version\":\"0.12.2\",\"format\":\"pack-quantized\",\"quantization_status\":\"compressed\",\"ignore\":[\"lm_"
      "head\"],"
      "\"kv_cache_scheme\":null,\"global_compression_ratio\":1.2,\"transform_config\":{},\"sparsity_config\":{},"
      "\"config_groups\":{\"group_0\":{\"format\":null,\"input_activations\":null,\"output_activations\":null,"
      "\"targets\":[\"Linear\"],\"weights\":{\"actorder\":\"weight\",\"block_structure\":null,\"dynamic\":false,"
      "\"group_size\":-1,\"num_bits\":8,\"observer\":\"minmax\",\"observer_kwargs\":{},\"scale_dtype\":null,"
      "\"strategy\":\"channel\",\"symmetric\":true,\"type\":\"int\",\"zp_dtype\":null}}}"));
  EXPECT_TRUE(stored.scheme == QuantizationScheme::kInt8 && stored.layout == Int8Layout::kPacked);
  EXPECT_TRUE(stored.IsQuantized(kQProj) && !stored.IsQuantized("lm_head"));
}

TEST(StoredQuantization, "takes targets and exceptions as names, classes and patterns") {
  const auto with = [](const std::string& targets, const std::string& ignore) {
    return Parse(CompressedTensors("\"format\":\"int-quantized\",\"ignore\":[" + ignore +
                                   "],\"config_groups\":{\"a\":{\"targets\":[" + targets + "],\"weights\":{" + kInt8 +
                                   "}}}"));
  };
  const StoredQuantization stored =
      with("\"re:.*self_attn\\\\..*\",\"model.layers.0.mlp.up_proj\"", "\"re:.*k_proj$\"");
  EXPECT_TRUE(stored.IsQuantized(kQProj) && stored.IsQuantized("model.layers.0.mlp.up_proj"));
  EXPECT_TRUE(!stored.IsQuantized("model.layers.1.self_attn.k_proj"));
  EXPECT_TRUE(!stored.IsQuantized("model.layers.1.mlp.up_proj"));
  // A name is the whole of it.
  EXPECT_TRUE(!with("\"q_proj\"", "").IsQuantized(kQProj) && with("\"Linear\"", "\"q_proj\"").IsQuantized(kQProj));
  EXPECT_TRUE(!with("\"LlamaMLP\"", "").IsQuantized(kQProj) && !with("\"Linear\"", "\"Linear\"").IsQuantized(kQProj));
  EXPECT_CONTAINS(ConfigError(OneGroup(kInt8, "", "\"format\":\"int-quantized\",\"ignore\":[\"re:(\"]")),
                  kUnsupported + "quantization_config.ignore: the pattern \"(\" is not supported");
}

TEST(StoredQuantization, "of several groups must agree on the scheme") {
  const auto groups = [](const std::string& second) {
    return CompressedTensors(
        "\"format\":\"mixed-precision\",\"config_groups\":{\"a\":{\"format\":\"int-quantized\","
        "\"targets\":[\"re:.*mlp.*\"],\"weights\":{" +
        kInt8 + "}},\"b\":{" + second + "\"targets\":[\"re:.*q_proj\"],\"weights\":{" + kInt8 + "}}}");
  };
  const StoredQuantization stored = Parse(groups("\"format\":\"int-quantized\","));
  EXPECT_TRUE(stored.IsQuantized(kQProj) && stored.IsQuantized("model.layers.1.mlp.up_proj"));
  EXPECT_TRUE(!stored.IsQuantized("model.layers.1.self_attn.k_proj"));
  EXPECT_CONTAINS(ConfigError(groups("\"format\":\"pack-quantized\",")),
                  kUnsupported +
                      "quantization_config.config_groups with groups of different schemes is not supported, as "
                      "\"b\" differs from the first");
  EXPECT_CONTAINS(ConfigError(groups("")), kUnsupported + "quantization_config.format \"mixed-precision\"");
}

TEST(StoredQuantization, "of other weights is refused by key and value") {
  const std::string weights = "quantization_config.config_groups[\"group_0\"].weights";
  const std::vector<std::pair<std::string, std::string>> cases{
      {"\"num_bits\":4", ".num_bits 4 is not supported; 8 is"},
      {"\"type\":\"float\"", ".type \"float\" is not supported; int is"},
      {"\"symmetric\":false", ".symmetric false is not supported"},
      {"\"strategy\":\"group\",\"group_size\":128", ".group_size 128 is not supported; null and -1 are"},
      {"\"strategy\":\"block\"",
       ".strategy \"block\" is not supported; the strategies of weights are channel and tensor"},
      {"\"block_structure\":[128,128]", ".block_structure a list is not supported"},
      {"\"strategy\":\"channel\",\"dynamic\":true", ".dynamic true is not supported; false is"},
      {"\"actorder\":\"group\"", ".actorder \"group\" is not supported"},
      {"\"actorder\":true", ".actorder true is not supported"},
      {"\"rotation\":1", " with the key \"rotation\" is not supported"}};
  for (const auto& [members, message] : cases)
    EXPECT_CONTAINS(ConfigError(OneGroup(members)), kUnsupported + weights + message);
  EXPECT_CONTAINS(ConfigError(OneGroup("\"num_bits\":\"8\"")), kFormat + weights + ".num_bits must be an integer");
}

TEST(StoredQuantization, "of other activations, outputs, formats and caches is refused by key and value") {
  const std::string group = "quantization_config.config_groups[\"group_0\"]";
  const auto activations = [](const std::string& members) {
    return ConfigError(OneGroup(kInt8, ",\"input_activations\":{" + members + "}"));
  };
  EXPECT_CONTAINS(
      activations("\"strategy\":\"token\""),
      kUnsupported + group + ".input_activations.dynamic must be true: static activations are not supported");
  EXPECT_CONTAINS(activations("\"strategy\":\"tensor\",\"dynamic\":true"),
                  kUnsupported + group + ".input_activations.strategy \"tensor\"");
  EXPECT_CONTAINS(activations("\"num_bits\":4,\"dynamic\":true"),
                  kUnsupported + group + ".input_activations.num_bits 4");
  EXPECT_CONTAINS(activations("\"type\":\"float\""), kUnsupported + group + ".input_activations.type \"float\"");
  EXPECT_CONTAINS(activations("\"symmetric\":false"), kUnsupported + group + ".input_activations.symmetric false");
  EXPECT_CONTAINS(ConfigError(OneGroup(kInt8, ",\"output_activations\":{\"num_bits\":8}")),
                  kUnsupported + group + ".output_activations an object is not supported");
  EXPECT_CONTAINS(
      ConfigError(CompressedTensors("\"format\":\"int-quantized\",\"config_groups\":{\"a\":{\"targets\":[]}}")),
      kFormat + "quantization_config.config_groups[\"a\"].weights is missing, expected an object");
  EXPECT_CONTAINS(
      ConfigError(CompressedTensors("\"format\":\"int-quantized\",\"config_groups\":{\"W8A8\":[\"Linear\"]}")),
      kFormat + "quantization_config.config_groups[\"W8A8\"] must hold an object, received a list");
  EXPECT_CONTAINS(
      ConfigError(OneGroup(kInt8, "", "\"format\":\"marlin-24\"")),
      kUnsupported + "quantization_config.format \"marlin-24\" is not supported; the formats are int-quantized");
  for (const char* member : {"\"kv_cache_scheme\":{\"num_bits\":8}", "\"transform_config\":{\"config_groups\":{}}",
                             "\"quantization_status\":\"frozen\""}) {
    const std::string message = ConfigError(OneGroup(kInt8, "", std::string("\"format\":\"int-quantized\",") + member));
    EXPECT_CONTAINS(message, kUnsupported + "quantization_config.");
    EXPECT_CONTAINS(message, " is not supported");
  }
  EXPECT_CONTAINS(ConfigError(CompressedTensors("\"config_groups\":{}")),
                  kFormat + "quantization_config.config_groups must be an object with at least one group");
}

std::string Sparse(const std::string& members, const std::string& more = "") {
  return CompressedTensors("\"sparsity_config\":{" + members + "}" + more);
}

TEST(StoredQuantization, "knows 2:4 sparsity alone and with int8") {
  const StoredQuantization sparse =
      Parse(Sparse("\"format\":\"sparse-24-bitmask\",\"global_sparsity\":0.5,\"registry_requires_subclass\":false,"
                   "\"sparsity_structure\":\"2:4\",\"targets\":[\"Linear\"],\"ignore\":[\"lm_head\"]",
                   ",\"config_groups\":{},\"format\":\"dense\",\"quantization_status\":\"frozen\""));
  EXPECT_TRUE(sparse.scheme == QuantizationScheme::kNone && sparse.sparse_24);
  EXPECT_TRUE(sparse.IsSparse(kQProj) && !sparse.IsSparse("lm_head") && !sparse.IsSparse("model.embed_tokens"));
  EXPECT_TRUE(!sparse.IsQuantized(kQProj));
  const StoredQuantization both = Parse(
      OneGroup(kInt8, kToken, "\"format\":\"int-quantized\",\"sparsity_config\":{\"format\":\"sparse-24-bitmask\"}"));
  EXPECT_TRUE(both.scheme == QuantizationScheme::kW8A8 && both.IsSparse(kQProj) && both.IsQuantized(kQProj));
  const StoredQuantization dense = Parse(Sparse("\"format\":\"dense\",\"sparsity_structure\":\"0:0\""));
  EXPECT_TRUE(!dense.sparse_24 && !dense.IsSparse(kQProj));
}

TEST(StoredQuantization, "of other sparsity is refused by key and value") {
  const std::string key = kUnsupported + "quantization_config.sparsity_config";
  EXPECT_CONTAINS(ConfigError(Sparse("\"format\":\"sparse-bitmask\"")),
                  key + ".format \"sparse-bitmask\" is not supported");
  EXPECT_CONTAINS(ConfigError(Sparse("\"format\":\"sparse-24-bitmask\",\"sparsity_structure\":\"unstructured\"")),
                  key + ".sparsity_structure \"unstructured\" is not supported; 2:4 is");
  EXPECT_CONTAINS(ConfigError(Sparse("\"format\":\"sparse-24-bitmask\",\"x\":1")), key + " with the key \"x\"");
  EXPECT_CONTAINS(ConfigError(OneGroup(kInt8, "",
                                       "\"format\":\"pack-quantized\",\"sparsity_config\":{\"format\":"
                                       "\"sparse-24-bitmask\"}")),
                  kUnsupported + "quantization_config with pack-quantized and sparse-24-bitmask is not supported");
}

}  // namespace
}  // namespace heddle
