#include "layers/attention.h"

#include <numeric>

#include "layers/weight_loading.h"

namespace heddle {

Attention::Attention(const BuildContext& context, const AttentionConfig& config, const AttentionWeights& weights,
                     const Tensor& cos_sin)
    : config_(config),
      shard_(HeadShard::Of(context.tp, config.num_heads, config.num_kv_heads)),
      cos_sin_(cos_sin),
      qkv_(QKVParallelLinear(context, weights.q, weights.k, weights.v, shard_, config.head_dim)),
      // The unit divides head_dim, so that a rank's columns are those of its heads.
      o_(context, weights.o, std::gcd(kShardUnit, int64_t{config.head_dim})) {
  if (!weights.q_norm.empty()) {
    q_norm_ = LoadVector(context, weights.q_norm, config.head_dim, config.norm_offset);
    k_norm_ = LoadVector(context, weights.k_norm, config.head_dim, config.norm_offset);
  }
}

void Attention::Forward(ForwardContext& context, const TensorView& x, const ResidualNorm* next) const {
  Stream& stream = context.stream;
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  const int num_heads = static_cast<int>(shard_.heads.size());
  const int num_kv_heads = static_cast<int>(shard_.kv_heads.size());
  const int64_t q_size = int64_t{num_heads} * config_.head_dim;
  const int64_t kv_size = int64_t{num_kv_heads} * config_.head_dim;

  const TensorView qkv = context.arena.Allocate(context.activation_dtype, {num_tokens, q_size + 2 * kv_size});
  qkv_.Forward(stream, x, qkv);
  const TensorView q = qkv.Columns(0, q_size);
  const TensorView k = qkv.Columns(q_size, q_size + kv_size);
  const TensorView v = qkv.Columns(q_size + kv_size, q_size + 2 * kv_size);

  if (!q_norm_.empty()) {
    const TensorView q_heads{q.data, q.dtype, {num_tokens, num_heads, config_.head_dim}, q.row_stride};
    const TensorView k_heads{k.data, k.dtype, {num_tokens, num_kv_heads, config_.head_dim}, k.row_stride};
    ops::RmsNorm(stream, q_heads, q_norm_, config_.norm_eps, q_heads);
    ops::RmsNorm(stream, k_heads, k_norm_, config_.norm_eps, k_heads);
  }
  const ops::KVCacheView& cache = context.kv_cache.layer(config_.layer);
  ops::RotateAndStore(stream, context.positions, cos_sin_, q, k, v, context.slot_mapping, cache);

  const TensorView out = context.arena.Allocate(context.activation_dtype, {num_tokens, q_size});
  const ops::AttentionParams params{.num_heads = num_heads,
                                    .num_kv_heads = num_kv_heads,
                                    .head_dim = config_.head_dim,
                                    .scale = config_.scale,
                                    .sliding_window = config_.sliding_window,
                                    .soft_cap = config_.soft_cap};
  ops::PagedAttention(stream, q, cache, context.attention, params, out);
  o_.Forward(stream, out, x, next);
}

}  // namespace heddle
