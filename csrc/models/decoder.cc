#include "models/decoder.h"

#include <algorithm>
#include <numeric>

#include "layers/weight_loading.h"

namespace heddle {
namespace {

ops::Activation ToActivation(HiddenActivation activation) {
  switch (activation) {
    case HiddenActivation::kSilu:
      return ops::Activation::kSilu;
    case HiddenActivation::kGeluTanh:
      return ops::Activation::kGeluTanh;
    case HiddenActivation::kGelu:
      break;
  }
  return ops::Activation::kGelu;
}

}  // namespace

Decoder::Decoder(const BuildContext& context, const ModelConfig& config, const DecoderOptions& options,
                 int max_model_len)
    : config_(config), options_(options) {
  for (const RopeConfig& rope : config.ropes) {
    RotaryTable& table =
        rotary_tables_.emplace_back(rope, config.head_dim, config.max_position_embeddings, max_model_len);
    if (context.stream.cuda() != nullptr) table.MoveTo(*context.stream.cuda());
  }
  const DecoderWeights weights(config, options);
  CheckWeights(context.weights, config, weights);
  lm_head_ = std::make_unique<ParallelLMHead>(context, weights.lm_head, config.vocab_size, config.hidden_size);
  embedding_ = config.tie_word_embeddings ? std::make_unique<VocabParallelEmbedding>(context.tp, *lm_head_)
                                          : std::make_unique<VocabParallelEmbedding>(
                                                context, weights.embedding, config.vocab_size, config.hidden_size);
  layers_.reserve(static_cast<size_t>(config.num_layers));
  for (const DecoderLayerWeights& layer : weights.layers) {
    layers_.push_back(BuildLayer(context, layer, static_cast<int>(layers_.size())));
  }
  final_norm_ = LoadVector(context, weights.final_norm, config.hidden_size, options.norm_offset);
}

Decoder::Layer Decoder::BuildLayer(const BuildContext& context, const DecoderLayerWeights& weights, int index) const {
  const auto i = static_cast<size_t>(index);
  const auto norm = [&](const std::string& name) {
    return name.empty() ? Tensor() : LoadVector(context, name, config_.hidden_size, options_.norm_offset);
  };
  const AttentionConfig attention{.layer = index,
                                  .hidden_size = config_.hidden_size,
                                  .num_heads = config_.num_heads,
                                  .num_kv_heads = config_.num_kv_heads,
                                  .head_dim = config_.head_dim,
                                  .scale = config_.attention_scale,
                                  .soft_cap = config_.attention_soft_cap,
                                  .sliding_window = config_.layer_sliding_window[i],
                                  .norm_eps = config_.rms_norm_eps,
                                  .norm_offset = options_.norm_offset};
  return {norm(weights.input_norm),
          Attention(context, attention, weights.attention,
                    rotary_tables_[static_cast<size_t>(config_.layer_rope[i])].cos_sin()),
          norm(weights.post_attention_norm),
          norm(weights.pre_mlp_norm),
          GatedMlp(context, weights.mlp, ToActivation(config_.activation)),
          norm(weights.post_mlp_norm)};
}

void Decoder::Forward(ForwardContext& context, const TensorView& hidden) const {
  Stream& stream = context.stream;
  const Arena::Scope scope(context.arena);
  const float eps = config_.rms_norm_eps;
  const TensorView residual = context.arena.Allocate(DType::kFloat32, {context.num_tokens(), config_.hidden_size});
  embedding_->Forward(context, config_.embedding_scale, residual);
  for (RotaryTable& table : rotary_tables_) table.FillTo(context.num_positions);

  // `hidden` carries the branch: normed residual in, what is to be added to the residual out.
  ops::RmsNorm(stream, residual, layers_.front().input_norm, eps, hidden);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (context.cancelled.load(std::memory_order_relaxed)) throw Error(ErrorCode::kCancelled, "the step was cancelled");
    const Layer& layer = layers_[i];
    const Tensor& next_norm = i + 1 < layers_.size() ? layers_[i + 1].input_norm : final_norm_;
    if (options_.sandwich_norms) {
      layer.attention.Forward(context, hidden);
      ops::RmsNorm(stream, hidden, layer.post_attention_norm, eps, hidden);
      ops::AddRmsNorm(stream, hidden, residual, layer.pre_mlp_norm, eps, hidden);
      layer.mlp.Forward(context, hidden);
      ops::RmsNorm(stream, hidden, layer.post_mlp_norm, eps, hidden);
      ops::AddRmsNorm(stream, hidden, residual, next_norm, eps, hidden);
    } else {
      const ResidualNorm before_mlp{residual, layer.post_attention_norm, eps};
      const ResidualNorm before_next{residual, next_norm, eps};
      layer.attention.Forward(context, hidden, &before_mlp);
      layer.mlp.Forward(context, hidden, &before_next);
    }
  }
}

void Decoder::ComputeLogits(ForwardContext& context, const TensorView& hidden, const TensorView& logits) const {
  lm_head_->Forward(context, hidden, config_.final_logit_soft_cap, logits);
}

size_t Decoder::weight_bytes() const {
  size_t bytes = lm_head_->weight_bytes() + embedding_->weight_bytes();
  for (const Layer& layer : layers_) bytes += layer.attention.weight_bytes() + layer.mlp.weight_bytes();
  return bytes;
}

ModelFootprint Decoder::Footprint(const ModelConfig& config, const DecoderOptions& options, const TensorParallel& tp,
                                  const WeightFormats& formats, DeviceType device) {
  const HeadShard heads = HeadShard::Of(tp, config.num_heads, config.num_kv_heads);
  const int64_t hidden = config.hidden_size;
  const int64_t q_size = heads.heads.size() * config.head_dim;
  const int64_t qkv_size = q_size + 2 * heads.kv_heads.size() * config.head_dim;
  const int64_t mlp_size = tp.Shard(config.intermediate_size, kShardUnit).size();
  const int64_t vocab_shard = tp.Shard(config.vocab_size, kShardUnit).size();

  const MatrixLayout layout = device == DeviceType::kCuda ? MatrixLayout::kRows : MatrixLayout::kPanels;
  const auto column_parallel = [&](const std::vector<std::string>& modules, int64_t rows) {
    return PackedMatrix::SizeBytes(formats.Linear(modules, hidden, hidden), rows, {0, hidden}, layout);
  };
  const auto row_parallel = [&](const StoredMatrix& matrix, int64_t unit) {
    return PackedMatrix::SizeBytes(formats.Linear({matrix.prefix}, matrix.columns, unit), matrix.rows,
                                   tp.ShardSlices(matrix.columns, unit), layout);
  };
  const DecoderWeights weights(config, options);
  ModelFootprint footprint;
  for (const DecoderLayerWeights& layer : weights.layers) {
    const auto& [q, k, v, o, q_norm, k_norm] = layer.attention;
    const auto& [gate, up, down] = layer.mlp;
    footprint.weight_bytes += column_parallel({q.prefix, k.prefix, v.prefix}, qkv_size) +
                              row_parallel(o, std::gcd(kShardUnit, int64_t{config.head_dim})) +
                              column_parallel({gate.prefix, up.prefix}, 2 * ops::GatedHalf(mlp_size, layout)) +
                              row_parallel(down, kShardUnit);
  }
  footprint.weight_bytes +=
      PackedMatrix::SizeBytes(formats.Head(ModuleOf(weights.lm_head)), vocab_shard, {0, hidden}, layout);
  if (!config.tie_word_embeddings) {
    footprint.weight_bytes +=
        device == DeviceType::kCuda
            ? PackedMatrix::SizeBytes({.dtype = formats.dtype()}, vocab_shard, {0, hidden}, layout)
            : vocab_shard * hidden * static_cast<int64_t>(DTypeSize(config.dtype));
  }
  // The residual stream and the branch, and the larger of what attention and MLP keep at once.
  const auto element = static_cast<int64_t>(DTypeSize(ActivationDType(device, formats.dtype())));
  footprint.activation_bytes_per_token =
      hidden * static_cast<int64_t>(sizeof(float)) + (hidden + std::max(qkv_size + q_size, mlp_size)) * element;
  for (const RopeConfig& rope : config.ropes) {
    footprint.bytes_per_position += rope.rotary_dim * static_cast<int64_t>(sizeof(float));
  }
  footprint.num_heads = static_cast<int>(heads.heads.size());
  footprint.num_kv_heads = static_cast<int>(heads.kv_heads.size());
  return footprint;
}

}  // namespace heddle
