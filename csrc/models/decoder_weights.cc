#include "models/decoder_weights.h"

namespace heddle {
namespace {

AttentionWeights AttentionWeightsOf(const ModelConfig& config, const std::string& prefix, bool fused) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_rows = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_rows = int64_t{config.num_kv_heads} * config.head_dim;
  const bool bias = config.qkv_bias;
  AttentionWeights weights;
  if (fused) {
    const int64_t rows = q_rows + 2 * kv_rows;
    weights.q = {prefix + "qkv_proj", q_rows, hidden, rows, 0, bias};
    weights.k = {prefix + "qkv_proj", kv_rows, hidden, rows, q_rows, bias};
    weights.v = {prefix + "qkv_proj", kv_rows, hidden, rows, q_rows + kv_rows, bias};
  } else {
    weights.q = StoredMatrix::Whole(prefix + "q_proj", q_rows, hidden, bias);
    weights.k = StoredMatrix::Whole(prefix + "k_proj", kv_rows, hidden, bias);
    weights.v = StoredMatrix::Whole(prefix + "v_proj", kv_rows, hidden, bias);
  }
  weights.o = StoredMatrix::Whole(prefix + "o_proj", hidden, q_rows, config.o_bias);
  if (config.qk_norm) {
    weights.q_norm = prefix + "q_norm.weight";
    weights.k_norm = prefix + "k_norm.weight";
  }
  return weights;
}

GatedMlpWeights MlpWeightsOf(const ModelConfig& config, const std::string& prefix, bool fused) {
  const int64_t hidden = config.hidden_size;
  const int64_t size = config.intermediate_size;
  const bool bias = config.mlp_bias;
  GatedMlpWeights weights;
  if (fused) {
    weights.gate = {prefix + "gate_up_proj", size, hidden, 2 * size, 0, bias};
    weights.up = {prefix + "gate_up_proj", size, hidden, 2 * size, size, bias};
  } else {
    weights.gate = StoredMatrix::Whole(prefix + "gate_proj", size, hidden, bias);
    weights.up = StoredMatrix::Whole(prefix + "up_proj", size, hidden, bias);
  }
  weights.down = StoredMatrix::Whole(prefix + "down_proj", hidden, size, bias);
  return weights;
}

void CheckMatrix(WeightSource& source, const StoredMatrix& matrix) {
  source.Get(matrix.prefix + ".weight", {matrix.stored_rows, matrix.columns});
  if (matrix.bias) source.Get(matrix.prefix + ".bias", {matrix.stored_rows});
}

void CheckNorm(WeightSource& source, const std::string& name, int64_t size) {
  if (!name.empty()) source.Get(name, {size});
}

// Tensors that old exporters add and that every engine derives by itself.
bool IsIgnorable(const std::string& name, bool tied) {
  const std::string suffix = "rotary_emb.inv_freq";
  if (name.size() >= suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0)
    return true;
  return tied && name == "lm_head.weight";
}

}  // namespace

DecoderWeights::DecoderWeights(const ModelConfig& config, const DecoderOptions& options)
    : embedding("model.embed_tokens.weight"),
      lm_head(config.tie_word_embeddings ? embedding : "lm_head.weight"),
      final_norm("model.norm.weight") {
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    layers.push_back({prefix + "input_layernorm.weight", prefix + "post_attention_layernorm.weight",
                      options.sandwich_norms ? prefix + "pre_feedforward_layernorm.weight" : "",
                      options.sandwich_norms ? prefix + "post_feedforward_layernorm.weight" : "",
                      AttentionWeightsOf(config, prefix + "self_attn.", options.fused_weights),
                      MlpWeightsOf(config, prefix + "mlp.", options.fused_weights)});
  }
}

void CheckWeights(WeightSource& source, const ModelConfig& config, const DecoderWeights& weights) {
  for (const std::string& name : {weights.embedding, weights.lm_head}) {
    source.Get(name, {config.vocab_size, config.hidden_size});
  }
  CheckNorm(source, weights.final_norm, config.hidden_size);
  for (const DecoderLayerWeights& layer : weights.layers) {
    const auto& [q, k, v, o, q_norm, k_norm] = layer.attention;
    const auto& [gate, up, down] = layer.mlp;
    for (const StoredMatrix* matrix : {&q, &k, &v, &o, &gate, &up, &down}) CheckMatrix(source, *matrix);
    for (const std::string* name : {&q_norm, &k_norm}) CheckNorm(source, *name, config.head_dim);
    for (const std::string* name :
         {&layer.input_norm, &layer.post_attention_norm, &layer.pre_mlp_norm, &layer.post_mlp_norm}) {
      CheckNorm(source, *name, config.hidden_size);
    }
  }
  for (const std::string& name : source.Unused()) {
    if (IsIgnorable(name, config.tie_word_embeddings)) continue;
    throw Error(ErrorCode::kModelFormat, "the checkpoint holds " + name + ", which its config.json gives no use for");
  }
}

}  // namespace heddle
