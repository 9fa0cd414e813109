// The shape and options of a decoder-only transformer, as plain numbers that layers take.
//
// Filled by models/ from config.json (transformers 4 and 5 spellings); everything below models/ sees only this.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace heddle {

enum class RopeType { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  int rotary_dim = 0;                        // at most head_dim
  int original_max_position_embeddings = 0;  // yarn, llama3, dynamic
  double low_freq_factor = 1.0;              // llama3
  double high_freq_factor = 4.0;
  double beta_fast = 32.0;  // yarn
  double beta_slow = 1.0;
  double mscale = 0.0;
  double mscale_all_dim = 0.0;
  double attention_factor = 0.0;  // 0: derived from factor
  bool truncate = true;
};

enum class HiddenActivation { kSilu, kGeluTanh, kGelu };

struct ModelConfig {
  std::string architecture;       // e.g. "LlamaForCausalLM"
  DType dtype = DType::kFloat32;  // of the checkpoint

  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int max_position_embeddings = 0;  // as config.json says: trained, or with some RoPE types reached by scaling
  int max_positions = 0;            // that can be computed: more where RoPE scaling extends them

  float rms_norm_eps = 1e-6f;
  HiddenActivation activation = HiddenActivation::kSilu;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  // RMSNorm over each head of q and k

  float attention_scale = 0;       // score = q . k * attention_scale
  float attention_soft_cap = 0;    // 0: off
  float final_logit_soft_cap = 0;  // 0: off
  float embedding_scale = 1.0f;

  // One entry a layer.
  std::vector<int> layer_sliding_window;  // 0: full attention
  std::vector<int> layer_rope;            // index into ropes
  std::vector<RopeConfig> ropes;

  std::vector<int32_t> eos_token_ids;
};

}  // namespace heddle
