// Multi-head attention with a paged KV cache, spread over heads: QKV projection, optional per-head norms, rotary
// embedding, cache write, attention, output projection.
//
// Immutable after construction; Forward on the rank's thread.
#pragma once

#include <optional>
#include <string>

#include "layers/linear.h"

namespace heddle {

struct AttentionConfig {
  int layer = 0;  // index into the KV cache
  int hidden_size = 0;
  int num_heads = 0;  // of the whole model
  int num_kv_heads = 0;
  int head_dim = 0;
  float scale = 0;
  float soft_cap = 0;
  int sliding_window = 0;
  float norm_eps = 0;
  float norm_offset = 0;  // added to the stored weights of the per-head norms
};

// Where the parts lie in the checkpoint.
struct AttentionWeights {
  StoredMatrix q, k, v, o;
  std::string q_norm, k_norm;  // empty without norms
};

class Attention {
 public:
  // `cos_sin` as ops::RotateAndStore takes it; outlives this.
  Attention(const BuildContext& context, const AttentionConfig& config, const AttentionWeights& weights,
            const Tensor& cos_sin);

  size_t weight_bytes() const { return qkv_.weight_bytes() + o_.weight_bytes(); }

  // x [num_tokens, hidden_size], in place; whole on every rank; then `next`, if given.
  void Forward(ForwardContext& context, const TensorView& x, const ResidualNorm* next = nullptr) const;

 private:
  AttentionConfig config_;
  HeadShard shard_;
  const Tensor& cos_sin_;
  ColumnParallelLinear qkv_;
  RowParallelLinear o_;
  Tensor q_norm_, k_norm_;
};

}  // namespace heddle
