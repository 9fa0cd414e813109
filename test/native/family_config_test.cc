// The rules of families, as each family in models/ puts them together.
#include "model_config_testing.h"
#include "models/model_config_parser.h"
#include "test.h"

namespace heddle {
namespace {

using namespace test;

TEST(FamilyConfig, "gives Mistral one window for all layers, 4096 when the key is absent, none when it is null") {
  EXPECT_TRUE(ParseFamily("MistralForCausalLM", {{"sliding_window", "24"}}).layer_sliding_window ==
              std::vector<int>(8, 24));
  EXPECT_TRUE(ParseFamily("MistralForCausalLM", {}).layer_sliding_window == std::vector<int>(8, 4096));
  EXPECT_TRUE(ParseFamily("MistralForCausalLM", {{"sliding_window", "null"}}).layer_sliding_window ==
              std::vector<int>(8, 0));
  EXPECT_CONTAINS(FamilyError("MistralForCausalLM", {{"sliding_window", "0"}}),
                  kFormat + "sliding_window must be an integer from 1");
  EXPECT_CONTAINS(FamilyError("MistralForCausalLM", {{"num_hidden_layers", "2"},
                                                     {"layer_types", "[\"sliding_attention\",\"full_attention\"]"}}),
                  kUnsupported + "layer_types");
}

TEST(FamilyConfig, "lets the upper layers of Qwen slide only where use_sliding_window says so") {
  const Members window = {{"sliding_window", "24"}, {"max_window_layers", "6"}, {"use_sliding_window", "true"}};
  for (const std::string family : {"Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    EXPECT_TRUE((ParseFamily(family, window).layer_sliding_window == std::vector<int>{0, 0, 0, 0, 0, 0, 24, 24}));
    Members off = window;
    off["use_sliding_window"] = "false";
    EXPECT_TRUE(ParseFamily(family, off).layer_sliding_window == std::vector<int>(8, 0));
    Members none = window;
    none["sliding_window"] = "null";
    EXPECT_TRUE(ParseFamily(family, none).layer_sliding_window == std::vector<int>(8, 0));
    Members types = window;
    types["num_hidden_layers"] = "2";
    types["layer_types"] = "[\"sliding_attention\",\"full_attention\"]";
    EXPECT_TRUE((ParseFamily(family, types).layer_sliding_window == std::vector<int>{24, 0}));
    types["use_sliding_window"] = "false";
    EXPECT_CONTAINS(FamilyError(family, types),
                    kFormat + "layer 0 has sliding attention, but sliding_window is null or switched off");
  }
}

TEST(FamilyConfig, "knows biases and norms of Qwen2 and Qwen3") {
  const ModelConfig qwen2 = ParseFamily("Qwen2ForCausalLM", {});
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.o_bias && !qwen2.qk_norm);
  const ModelConfig qwen3 = ParseFamily("Qwen3ForCausalLM", {{"head_dim", ""}});
  EXPECT_TRUE(!qwen3.qkv_bias && qwen3.qk_norm);
  EXPECT_EQ(qwen3.head_dim, 128);
}

TEST(FamilyConfig, "alternates layers of Gemma 2 from a sliding one on, and reads its caps and scales") {
  const ModelConfig model =
      ParseFamily("Gemma2ForCausalLM", {{"sliding_window", "24"}, {"query_pre_attn_scalar", "64"}});
  EXPECT_TRUE((model.layer_sliding_window == std::vector<int>{24, 0, 24, 0, 24, 0, 24, 0}));
  EXPECT_TRUE(model.layer_rope == std::vector<int>(8, 0));
  EXPECT_EQ(model.attention_scale, 0.125f);
  EXPECT_EQ(model.attention_soft_cap, 50.0f);
  EXPECT_EQ(model.final_logit_soft_cap, 30.0f);
  EXPECT_EQ(model.embedding_scale, 8.0f);
  EXPECT_EQ(model.activation, HiddenActivation::kGeluTanh);
  EXPECT_TRUE(model.tie_word_embeddings);
  const ModelConfig uncapped =
      ParseFamily("Gemma2ForCausalLM", {{"attn_logit_softcapping", "null"}, {"final_logit_softcapping", "20.0"}});
  EXPECT_EQ(uncapped.attention_soft_cap, 0.0f);
  EXPECT_EQ(uncapped.final_logit_soft_cap, 20.0f);
  EXPECT_EQ(uncapped.attention_scale, 0.0625f);
  EXPECT_EQ(uncapped.layer_sliding_window[0], 4096);
}

TEST(FamilyConfig, "gives sliding and full layers of Gemma 3 their own RoPE, in both spellings") {
  const Members nested = {{"sliding_window", "24"},
                          {"rope_parameters",
                           "{\"full_attention\":{\"rope_theta\":500000.0,\"rope_type\":\"linear\",\"factor\":8.0},"
                           "\"sliding_attention\":{\"rope_theta\":20000.0,\"rope_type\":\"default\"}}"}};
  const Members flat = {{"sliding_window", "24"},
                        {"rope_parameters", ""},
                        {"sliding_window_pattern", "6"},
                        {"rope_theta", "500000.0"},
                        {"rope_local_base_freq", "20000.0"},
                        {"rope_scaling", "{\"rope_type\":\"linear\",\"factor\":8.0}"}};
  for (const Members& members : {nested, flat}) {
    const ModelConfig model = ParseFamily("Gemma3ForCausalLM", members);
    EXPECT_TRUE((model.layer_sliding_window == std::vector<int>{24, 24, 24, 24, 24, 0, 24, 24}));
    EXPECT_TRUE((model.layer_rope == std::vector<int>{1, 1, 1, 1, 1, 0, 1, 1}));
    EXPECT_EQ(model.ropes.size(), 2u);
    EXPECT_EQ(model.ropes[0].theta, 500000.0);
    EXPECT_EQ(model.ropes[0].type, RopeType::kLinear);
    EXPECT_EQ(model.ropes[0].factor, 8.0);
    EXPECT_EQ(model.ropes[1].theta, 20000.0);
    EXPECT_EQ(model.ropes[1].type, RopeType::kDefault);
    EXPECT_EQ(model.attention_soft_cap, 0.0f);
    EXPECT_TRUE(model.qk_norm);
  }
  const ModelConfig plain =
      ParseFamily("Gemma3ForCausalLM", {{"rope_parameters", ""}, {"sliding_window_pattern", "3"}});
  EXPECT_EQ(plain.ropes[0].theta, 1000000.0);
  EXPECT_EQ(plain.ropes[1].theta, 10000.0);
  EXPECT_TRUE((plain.layer_rope == std::vector<int>{1, 1, 0, 1, 1, 0, 1, 1}));
}

TEST(FamilyConfig, "refuses options of Gemma that we do not compute and RoPE settings that fit no layer") {
  EXPECT_CONTAINS(FamilyError("Gemma2ForCausalLM", {{"use_bidirectional_attention", "true"}}),
                  kUnsupported + "use_bidirectional_attention true");
  EXPECT_CONTAINS(FamilyError("Gemma2ForCausalLM", {{"sliding_window", "null"}}),
                  kFormat + "layer 0 has sliding attention");
  EXPECT_CONTAINS(FamilyError("Gemma2ForCausalLM", {{"attn_logit_softcapping", "0"}}),
                  kFormat + "attn_logit_softcapping must be a number");
  EXPECT_CONTAINS(FamilyError("Gemma3ForCausalLM", {}),
                  kFormat + "rope_parameters must be an object with the members full_attention and sliding_attention");
  EXPECT_CONTAINS(FamilyError("Gemma3ForCausalLM", {{"rope_parameters", "{\"full_attention\":1}"}}),
                  kFormat + "rope_parameters.full_attention must hold an object, received 1");
  EXPECT_CONTAINS(
      FamilyError("Gemma3ForCausalLM", {{"rope_parameters", "{\"sliding_attention\":{\"rope_type\":\"longrope\"}}"}}),
      kUnsupported + "rope_parameters.sliding_attention.rope_type \"longrope\"");
}

TEST(FamilyConfig, "refuses layer types that are not one known type a layer") {
  const std::string family = "Gemma2ForCausalLM";
  for (const std::string value : {"\"full_attention\"", "[]", "[\"full_attention\"]", "{}"}) {
    EXPECT_CONTAINS(FamilyError(family, {{"layer_types", value}}),
                    kFormat + "layer_types must be a list of 8 types, one for each layer");
  }
  EXPECT_CONTAINS(FamilyError(family, {{"num_hidden_layers", "1"}, {"layer_types", "[1]"}}),
                  kFormat + "layer_types must be a list of strings");
  EXPECT_CONTAINS(FamilyError(family, {{"num_hidden_layers", "1"}, {"layer_types", "[\"chunked_attention\"]"}}),
                  kUnsupported + "layer_types with \"chunked_attention\" is not supported");
}

TEST(FamilyConfig, "takes partial rotation and the epsilon of Phi-3, and no window by default") {
  const ModelConfig model = ParseFamily("Phi3ForCausalLM", {{"rms_norm_eps", ""},
                                                            {"rope_parameters", "{\"partial_rotary_factor\":0.75}"},
                                                            {"original_max_position_embeddings", "4096"}});
  EXPECT_EQ(model.rms_norm_eps, 1e-5f);
  EXPECT_EQ(model.ropes[0].rotary_dim, 12);
  EXPECT_TRUE(model.layer_sliding_window == std::vector<int>(8, 0));
}

TEST(FamilyConfig, "refuses unknown architectures by name, with those there are") {
  EXPECT_CONTAINS(FamilyError("MixtralForCausalLM", {}), "ERR_UNSUPPORTED_MODEL: ");
  EXPECT_CONTAINS(FamilyError("MixtralForCausalLM", {}), "MixtralForCausalLM");
  EXPECT_CONTAINS(FamilyError("MixtralForCausalLM", {}), "LlamaForCausalLM");
}

}  // namespace
}  // namespace heddle
