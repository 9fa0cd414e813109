// From config.json, in the spellings of transformers 4 and 5, to ModelConfig: the keys that all families share, and
// the rules that some of them share. A family's file calls ParseModelConfig and then the rules that are its own.
//
// Everything here fails with kModelFormat (a key is missing, of the wrong type or out of range) or kUnsupportedModel
// (a sound value that asks for something we do not compute), in one sentence that names key, expectation and value.
// A null is an absent key unless said otherwise. Keys that are not named here are ignored, as transformers does.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/json.h"
#include "core/model_config.h"

namespace heddle {

enum class RopeLayout {
  kShared,        // one setting for all layers
  kPerLayerType,  // ropes[0] for full attention, ropes[1] for sliding attention (Gemma 3)
};

// What differs between families in the shared keys. The defaults are those of Llama.
struct ConfigDefaults {
  int head_dim = 0;  // when the key is absent; 0: hidden_size / num_attention_heads
  double rms_norm_eps = 1e-6;
  const char* activation_key = "hidden_act";  // Gemma: "hidden_activation"
  const char* activation = "silu";
  bool tie_word_embeddings = false;
  RopeLayout rope_layout = RopeLayout::kShared;
  double rope_theta = 10000.0;
  double sliding_rope_theta = 10000.0;  // kPerLayerType: of the sliding layers
  bool partial_rotary = false;          // whether the family rotates a part of each head; otherwise it is refused
  bool rope_scaling = true;             // whether it scales RoPE at all; otherwise every type but "default" is refused
};

// architectures[0].
std::string ParseArchitecture(const Json& config);

// The shared part. Reads
//   architectures                        a list with at least one name; the first counts
//   dtype, torch_dtype                   float32 | bfloat16 | float16; absent: float32
//   vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, max_position_embeddings
//   num_key_value_heads                  divides num_attention_heads; absent: as many
//   head_dim, rms_norm_eps, tie_word_embeddings, hidden_act or hidden_activation
//   attention_bias, mlp_bias             to qkv_bias and o_bias, mlp_bias; absent: false
//   eos_token_id                         a token id or a list of them; absent: none
//   rope_theta, rope_scaling (transformers 4: `type` or `rope_type`), rope_parameters (5), partial_rotary_factor,
//   original_max_position_embeddings     RoPE types default, linear, dynamic, yarn, llama3
// and refuses is_encoder_decoder and a false is_causal. How weights are stored is the loader's to read.
// Every layer has full attention and ropes[0]; attention_scale is 1 / sqrt(head_dim).
ModelConfig ParseModelConfig(const Json& config, const ConfigDefaults& defaults = {});

// -- Rules that families call --

// One window for all layers (Mistral, Phi-3): `sliding_window`; null: none; absent: `default_window`, 0 for none.
void ApplySlidingWindow(const Json& config, int default_window, ModelConfig& model);

// The upper layers slide (Qwen2, Qwen3): with `use_sliding_window`, those of `layer_types` or, without it, from
// `max_window_layers` (absent: 28) on; the window is `sliding_window` (absent: 4096).
void ApplyUpperSlidingWindow(const Json& config, ModelConfig& model);

// Sliding and full layers alternate (Gemma 2, Gemma 3): those of `layer_types` or, without it, every n-th layer is
// full, n being `sliding_window_pattern` or `default_pattern`; the window is `sliding_window` (absent: 4096).
void ApplyAlternatingSlidingWindow(const Json& config, int default_pattern, ModelConfig& model);

// The rule below the other three: `layer_types` (full_attention | sliding_attention, one a layer) or, without it, the
// layers for which `slides` is true get `window` (0: none, then no layer may slide) and, where there are two ropes,
// ropes[1].
void ApplyLayerTypes(const Json& config, int window, const std::function<bool(int layer)>& slides, ModelConfig& model);

// Gemma 2 and 3: attention_scale from `query_pre_attn_scalar` (absent: 256), the soft caps `attn_logit_softcapping`
// and `final_logit_softcapping` (null: off; absent: the defaults, 0 for off), embedding_scale sqrt(hidden_size).
// Refuses a true use_bidirectional_attention.
void ApplyGemmaOptions(const Json& config, double default_attention_cap, double default_final_cap, ModelConfig& model);

}  // namespace heddle
