#include "models/model_config_parser.h"

#include <random>

#include "model_config_testing.h"
#include "test.h"

namespace heddle {
namespace {

using namespace test;

TEST(ModelConfig, "reads the shared keys as transformers 5 writes them") {
  const ModelConfig model = Parse({{"eos_token_id", "1"}, {"attention_bias", "true"}, {"tie_word_embeddings", "true"}});
  EXPECT_EQ(model.architecture, std::string("LlamaForCausalLM"));
  EXPECT_EQ(model.dtype, DType::kBFloat16);
  EXPECT_EQ(model.vocab_size, 512);
  EXPECT_EQ(model.hidden_size, 64);
  EXPECT_EQ(model.intermediate_size, 160);
  EXPECT_EQ(model.num_layers, 8);
  EXPECT_EQ(model.num_heads, 8);
  EXPECT_EQ(model.num_kv_heads, 4);
  EXPECT_EQ(model.head_dim, 16);
  EXPECT_EQ(model.max_position_embeddings, 2048);
  EXPECT_EQ(model.rms_norm_eps, 1e-5f);
  EXPECT_EQ(model.activation, HiddenActivation::kSilu);
  EXPECT_TRUE(model.tie_word_embeddings);
  EXPECT_TRUE(model.qkv_bias && model.o_bias && !model.mlp_bias && !model.qk_norm);
  EXPECT_EQ(model.attention_scale, 0.25f);
  EXPECT_EQ(model.attention_soft_cap, 0.0f);
  EXPECT_EQ(model.embedding_scale, 1.0f);
  EXPECT_TRUE(model.layer_sliding_window == std::vector<int>(8, 0));
  EXPECT_TRUE(model.layer_rope == std::vector<int>(8, 0));
  EXPECT_EQ(model.ropes.size(), 1u);
  EXPECT_EQ(model.ropes[0].rotary_dim, 16);
  EXPECT_TRUE(model.eos_token_ids == std::vector<int32_t>{1});
}

TEST(ModelConfig, "takes the defaults of transformers for keys that are absent or null") {
  for (const std::string absent : {"", "null"}) {
    const ModelConfig model = Parse({{"dtype", absent},
                                     {"num_key_value_heads", absent},
                                     {"head_dim", absent},
                                     {"rms_norm_eps", absent},
                                     {"hidden_act", absent},
                                     {"tie_word_embeddings", absent},
                                     {"attention_bias", absent},
                                     {"eos_token_id", absent},
                                     {"rope_parameters", absent},
                                     {"quantization_config", absent}});
    EXPECT_EQ(model.dtype, DType::kFloat32);
    EXPECT_EQ(model.num_kv_heads, 8);
    EXPECT_EQ(model.head_dim, 8);
    EXPECT_EQ(model.rms_norm_eps, 1e-6f);
    EXPECT_TRUE(!model.tie_word_embeddings && !model.qkv_bias);
    EXPECT_TRUE(model.eos_token_ids.empty());
    EXPECT_EQ(model.ropes[0].theta, 10000.0);
    EXPECT_EQ(model.ropes[0].type, RopeType::kDefault);
  }
}

TEST(ModelConfig, "reads torch_dtype of transformers 4, after dtype, and refuses other types by name") {
  EXPECT_EQ(Parse({{"dtype", ""}, {"torch_dtype", "\"float16\""}}).dtype, DType::kFloat16);
  EXPECT_EQ(Parse({{"torch_dtype", "\"float16\""}}).dtype, DType::kBFloat16);
  EXPECT_CONTAINS(ParseError({{"dtype", "\"float8_e4m3fn\""}}),
                  kUnsupported + "dtype \"float8_e4m3fn\" is not supported");
  EXPECT_CONTAINS(ParseError({{"dtype", ""}, {"torch_dtype", "16"}}),
                  kFormat + "torch_dtype must be a string, received 16");
}

TEST(ModelConfig, "reads one eos token or several, all within the vocabulary") {
  EXPECT_TRUE((Parse({{"eos_token_id", "[1, 2, 511]"}}).eos_token_ids == std::vector<int32_t>{1, 2, 511}));
  EXPECT_TRUE(Parse({{"eos_token_id", "[]"}}).eos_token_ids.empty());
  for (const std::string value : {"512", "-1", "1.5", "\"1\"", "[1, 512]", "[null]", "{}"}) {
    EXPECT_CONTAINS(ParseError({{"eos_token_id", value}}),
                    kFormat + "eos_token_id must be one or more token ids below vocab_size 512");
  }
}

TEST(ModelConfig, "knows three activations and refuses others by name") {
  EXPECT_EQ(Parse({{"hidden_act", "\"gelu_pytorch_tanh\""}}).activation, HiddenActivation::kGeluTanh);
  EXPECT_EQ(Parse({{"hidden_act", "\"gelu\""}}).activation, HiddenActivation::kGelu);
  EXPECT_CONTAINS(ParseError({{"hidden_act", "\"relu2\""}}), kUnsupported + "hidden_act \"relu2\" is not supported");
  EXPECT_CONTAINS(ParseError({{"hidden_act", "[1]"}}), kFormat + "hidden_act must be a string, received a list");
}

TEST(ModelConfig, "refuses what is not an object and architectures that are not a list of names") {
  for (const char* text : {"[]", "null", "1", "\"{}\""}) {
    EXPECT_ERROR(ErrorCode::kModelFormat, ParseModelConfig(Json::Parse(text, "config.json")));
  }
  for (const std::string value : {"", "null", "[]", "\"LlamaForCausalLM\"", "[1]", "{}"}) {
    EXPECT_CONTAINS(ParseError({{"architectures", value}}), kFormat + "architectures ");
  }
}

TEST(ModelConfig, "refuses required sizes that are missing, of another type or out of range, by key and value") {
  for (const std::string key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                "num_attention_heads", "max_position_embeddings"}) {
    EXPECT_CONTAINS(ParseError({{key, ""}}), kFormat + key + " is missing, expected an integer from 1 to ");
    for (const std::string value : {"null", "0", "-1", "1.5", "64.0", "1e3", "1e999", "\"64\"", "[64]", "{}", "true",
                                    "4294967297", "18446744073709551616"}) {
      EXPECT_CONTAINS(ParseError({{key, value}}), kFormat + key + " must be an integer from 1 to ");
    }
  }
  EXPECT_CONTAINS(ParseError({{"num_hidden_layers", "1001"}}),
                  "num_hidden_layers must be an integer from 1 to 1000, received 1001");
  EXPECT_CONTAINS(ParseError({{"hidden_size", "1000001"}}), "received 1000001");
  EXPECT_CONTAINS(ParseError({{"vocab_size", "10000001"}}), "received 10000001");
}

TEST(ModelConfig, "refuses heads that do not fit together") {
  EXPECT_CONTAINS(ParseError({{"num_key_value_heads", "3"}}),
                  kFormat + "num_key_value_heads must be a divisor of num_attention_heads 8, received 3");
  EXPECT_CONTAINS(ParseError({{"num_key_value_heads", "16"}}), "a divisor of num_attention_heads");
  EXPECT_CONTAINS(ParseError({{"num_key_value_heads", "0"}}), kFormat + "num_key_value_heads");
  EXPECT_CONTAINS(ParseError({{"head_dim", ""}, {"hidden_size", "68"}}),
                  kFormat + "hidden_size must be a multiple of num_attention_heads 8");
  EXPECT_EQ(Parse({{"hidden_size", "68"}}).head_dim, 16);
  EXPECT_CONTAINS(ParseError({{"head_dim", "0"}}), kFormat + "head_dim");
  EXPECT_CONTAINS(ParseError({{"head_dim", "15"}}), kUnsupported + "a head_dim of 15");
  EXPECT_CONTAINS(ParseError({{"head_dim", "514"}}), kUnsupported + "a head_dim of 514");
}

TEST(ModelConfig, "refuses numbers that are not finite and positive") {
  for (const std::string value : {"0", "-1e-5", "1e999", "-1e999", "2", "\"1e-5\"", "true"}) {
    EXPECT_CONTAINS(ParseError({{"rms_norm_eps", value}}), kFormat + "rms_norm_eps must be a number from 1e-30 to 1");
  }
  EXPECT_CONTAINS(ParseError({{"tie_word_embeddings", "1"}}),
                  kFormat + "tie_word_embeddings must be true or false, received 1");
}

TEST(ModelConfig, "refuses other kinds of models by name") {
  EXPECT_CONTAINS(ParseError({{"is_encoder_decoder", "true"}}),
                  kUnsupported + "is_encoder_decoder true is not supported");
  EXPECT_CONTAINS(ParseError({{"is_causal", "false"}}), kUnsupported + "is_causal false is not supported");
}

// -- RoPE --

RopeConfig RopeOf(const std::string& parameters, const Members& changes = {}) {
  Members members = changes;
  members["rope_parameters"] = parameters;
  return Parse(members).ropes[0];
}

TEST(ModelConfig, "reads rope_theta and rope_scaling of transformers 4") {
  const RopeConfig plain =
      Parse({{"rope_parameters", ""}, {"rope_theta", "500000.0"}, {"rope_scaling", "null"}}).ropes[0];
  EXPECT_EQ(plain.theta, 500000.0);
  EXPECT_EQ(plain.type, RopeType::kDefault);
  const Members legacy = {
      {"rope_parameters", ""}, {"rope_theta", "20000"}, {"rope_scaling", "{\"type\":\"linear\",\"factor\":4.0}"}};
  const RopeConfig linear = Parse(legacy).ropes[0];
  EXPECT_EQ(linear.type, RopeType::kLinear);
  EXPECT_EQ(linear.factor, 4.0);
  EXPECT_EQ(linear.theta, 20000.0);
}

TEST(ModelConfig, "prefers rope_scaling to rope_parameters, rope_type to type, and members to the keys around them") {
  const RopeConfig rope = RopeOf(
      "{\"rope_type\":\"default\",\"rope_theta\":3000}",
      {{"rope_theta", "7000"}, {"rope_scaling", "{\"rope_type\":\"dynamic\",\"type\":\"linear\",\"factor\":2}"}});
  EXPECT_EQ(rope.type, RopeType::kDynamic);
  EXPECT_EQ(rope.theta, 7000.0);
  EXPECT_EQ(rope.original_max_position_embeddings, 2048);
  EXPECT_EQ(RopeOf("{\"rope_theta\":3000}", {{"rope_theta", "7000"}, {"rope_scaling", "{}"}}).theta, 3000.0);
}

TEST(ModelConfig, "reads llama3 with its four parameters, and requires them") {
  const std::string parameters =
      "\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"low_freq_factor\":1.0,\"high_freq_factor\":4.0";
  const RopeConfig rope = RopeOf("{" + parameters + ",\"factor\":8.0,\"original_max_position_embeddings\":64}");
  EXPECT_EQ(rope.type, RopeType::kLlama3);
  EXPECT_EQ(rope.factor, 8.0);
  EXPECT_EQ(rope.low_freq_factor, 1.0);
  EXPECT_EQ(rope.high_freq_factor, 4.0);
  EXPECT_EQ(rope.original_max_position_embeddings, 64);
  EXPECT_EQ(RopeOf("{" + parameters + ",\"factor\":8.0}").original_max_position_embeddings, 2048);
  EXPECT_EQ(RopeOf("{" + parameters + ",\"factor\":8.0,\"original_max_position_embeddings\":64}",
                   {{"original_max_position_embeddings", "128"}})
                .original_max_position_embeddings,
            128);
  EXPECT_CONTAINS(ParseError({{"rope_parameters", "{" + parameters + "}"}}),
                  kFormat + "rope_parameters.factor is missing");
  EXPECT_CONTAINS(
      ParseError({{"rope_parameters",
                   "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}"}}),
      kFormat + "rope_parameters.high_freq_factor must be greater than low_freq_factor, received 4");
}

TEST(ModelConfig, "reads yarn with defaults, and derives a missing factor from the two lengths") {
  const RopeConfig plain = RopeOf("{\"rope_type\":\"yarn\",\"original_max_position_embeddings\":512}");
  EXPECT_EQ(plain.type, RopeType::kYarn);
  EXPECT_EQ(plain.factor, 4.0);
  EXPECT_EQ(plain.beta_fast, 32.0);
  EXPECT_EQ(plain.beta_slow, 1.0);
  EXPECT_EQ(plain.attention_factor, 0.0);
  EXPECT_TRUE(plain.truncate);
  const RopeConfig full = RopeOf(
      "{\"rope_type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":1024,\"beta_fast\":16,\"beta_slow\":"
      "2,\"mscale\":0.707,\"mscale_all_dim\":1.2,\"attention_factor\":1.5,\"truncate\":false}");
  EXPECT_EQ(full.factor, 40.0);
  EXPECT_EQ(full.original_max_position_embeddings, 1024);
  EXPECT_EQ(full.beta_fast, 16.0);
  EXPECT_EQ(full.beta_slow, 2.0);
  EXPECT_EQ(full.mscale, 0.707);
  EXPECT_EQ(full.mscale_all_dim, 1.2);
  EXPECT_EQ(full.attention_factor, 1.5);
  EXPECT_TRUE(!full.truncate);
}

TEST(ModelConfig, "reaches as many positions as its RoPE scaling extends it to") {
  const auto positions = [](const std::string& scaling) { return Parse({{"rope_scaling", scaling}}).max_positions; };
  EXPECT_EQ(positions("null"), 2048);
  EXPECT_EQ(positions("{\"type\":\"linear\",\"factor\":4.0}"), 8192);
  EXPECT_EQ(positions("{\"type\":\"dynamic\",\"factor\":2.0}"), 4096);
  EXPECT_EQ(positions("{\"type\":\"yarn\",\"factor\":8.0,\"original_max_position_embeddings\":512}"), 4096);
  EXPECT_EQ(positions("{\"type\":\"yarn\",\"factor\":4.0}"), 8192);
  EXPECT_EQ(positions("{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1,\"high_freq_factor\":4}"), 2048);
}

TEST(ModelConfig, "refuses RoPE types that we do not compute, by key and value") {
  for (const std::string type : {"longrope", "su", "mrope", "proportional", "ntk"}) {
    EXPECT_CONTAINS(ParseError({{"rope_parameters", "{\"rope_type\":\"" + type + "\"}"}}),
                    kUnsupported + "rope_parameters.rope_type \"" + type + "\" is not supported");
    EXPECT_CONTAINS(ParseError({{"rope_scaling", "{\"type\":\"" + type + "\"}"}}),
                    kUnsupported + "rope_scaling.type \"" + type + "\" is not supported");
  }
  EXPECT_CONTAINS(ParseError({{"rope_parameters", "{\"full_attention\":{},\"sliding_attention\":{}}"}}),
                  kUnsupported + "rope_parameters");
}

TEST(ModelConfig, "refuses RoPE parameters of the wrong type or out of range, by key and value") {
  EXPECT_CONTAINS(ParseError({{"rope_parameters", "\"default\""}}),
                  kFormat + "rope_parameters must be an object, received \"default\"");
  EXPECT_CONTAINS(ParseError({{"rope_scaling", "[]"}}), kFormat + "rope_scaling must be an object");
  EXPECT_CONTAINS(ParseError({{"rope_parameters", "{\"rope_type\":1}"}}),
                  kFormat + "rope_parameters.rope_type must be a string");
  EXPECT_CONTAINS(ParseError({{"rope_parameters", ""}, {"rope_theta", "1e999"}}),
                  kFormat + "rope_theta must be a number from 2 to 1e+15, received inf");
  for (const std::string value : {"0", "-4", "1e999", "1e7", "\"4\"", "null"}) {
    EXPECT_CONTAINS(ParseError({{"rope_scaling", "{\"type\":\"linear\",\"factor\":" + value + "}"}}),
                    kFormat + "rope_scaling.factor must be a number");
  }
  for (const std::string key :
       {"beta_fast", "beta_slow", "mscale", "attention_factor", "original_max_position_embeddings"}) {
    EXPECT_CONTAINS(ParseError({{"rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":4,\"" + key + "\":-1}"}}),
                    kFormat + "rope_parameters." + key + " must be");
  }
  EXPECT_CONTAINS(ParseError({{"head_dim", "2"}, {"rope_parameters", "{\"rope_type\":\"dynamic\",\"factor\":2}"}}),
                  kUnsupported + "rope_parameters.rope_type \"dynamic\"");
}

TEST(ModelConfig, "rotates a part of the head where the family does, and refuses it elsewhere") {
  ConfigDefaults partial;
  partial.partial_rotary = true;
  EXPECT_EQ(Parse({{"rope_parameters", "{\"partial_rotary_factor\":0.5}"}}, partial).ropes[0].rotary_dim, 8);
  EXPECT_EQ(Parse({{"partial_rotary_factor", "0.75"}}, partial).ropes[0].rotary_dim, 12);
  EXPECT_EQ(Parse({{"partial_rotary_factor", "1.0"}}).ropes[0].rotary_dim, 16);
  EXPECT_CONTAINS(ParseError({{"partial_rotary_factor", "0.5"}}),
                  kUnsupported + "partial_rotary_factor 0.5 is not supported for this architecture");
  EXPECT_CONTAINS(ParseError({{"partial_rotary_factor", "0.2"}}, partial),
                  kFormat + "partial_rotary_factor must be a part of head_dim 16 that is even, received 0.2");
  for (const std::string value : {"0", "1.5", "-1"}) {
    EXPECT_CONTAINS(ParseError({{"partial_rotary_factor", value}}, partial),
                    kFormat + "partial_rotary_factor must be a number");
  }
}

TEST(ModelConfig, "refuses every scaling where the family has none") {
  ConfigDefaults defaults;
  defaults.rope_scaling = false;
  EXPECT_EQ(ParseError({}, defaults), std::string());
  EXPECT_CONTAINS(ParseError({{"rope_scaling", "{\"type\":\"yarn\",\"factor\":4}"}}, defaults),
                  kUnsupported + "rope_scaling.type \"yarn\" is not supported for this architecture");
}

TEST(ModelConfig, "is read or refused with a typed error under 10,000 random byte changes of config.json") {
  const std::string whole =
      "{\"architectures\":[\"Gemma3ForCausalLM\"],\"dtype\":\"bfloat16\",\"vocab_size\":512,\"hidden_size\":64,"
      "\"intermediate_size\":160,\"num_hidden_layers\":2,\"num_attention_heads\":8,\"num_key_value_heads\":4,"
      "\"head_dim\":16,\"max_position_embeddings\":2048,\"rms_norm_eps\":1e-05,\"sliding_window\":24,"
      "\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"eos_token_id\":[1,2],\"rope_parameters\":{"
      "\"full_attention\":{\"rope_theta\":1e6,\"rope_type\":\"yarn\",\"factor\":4.0,\"truncate\":false},"
      "\"sliding_attention\":{\"rope_theta\":10000.0,\"rope_type\":\"default\"}}}";
  const std::string alphabet = "{}[]\",:0123456789-+.eE\\ntfu \x80";
  std::mt19937_64 random(7);
  int read = 0;
  for (int round = 0; round < 10'000; ++round) {
    std::string text = whole;
    text[random() % text.size()] = alphabet[random() % alphabet.size()];
    try {
      const Json config = Json::Parse(text, "config.json");
      FindModelFamily(config).parse_config(config);
      ++read;
    } catch (const Error& error) {
      const bool typed = error.code() == ErrorCode::kModelFormat || error.code() == ErrorCode::kUnsupportedModel;
      if (!typed) Fail(__FILE__, __LINE__, error.what());
    }
  }
  // Most changes break the JSON or misspell a required key; those of digits mostly do not.
  EXPECT_TRUE(read > 100 && read < 9'900);
}

}  // namespace
}  // namespace heddle
