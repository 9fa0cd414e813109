// The decoder that the dense families share: embedding, layers of attention and gated MLP around a residual stream,
// final norm, output head. Families differ in their config and in the options below.
#pragma once

#include <memory>
#include <vector>

#include "layers/attention.h"
#include "layers/gated_mlp.h"
#include "layers/vocab_parallel_embedding.h"
#include "models/causal_lm.h"
#include "models/rotary_table.h"

namespace heddle {

struct DecoderOptions {
  float norm_offset = 0;        // Gemma stores norm weights minus one
  bool sandwich_norms = false;  // norms after attention and MLP as well as before (Gemma 2, 3)
  bool fused_weights = false;   // qkv_proj and gate_up_proj stored as one matrix each (Phi-3)
};

class Decoder : public CausalLM {
 public:
  // Fails with kModelFormat as the weight source does; also when the checkpoint holds weights that nothing uses.
  Decoder(const BuildContext& context, const ModelConfig& config, const DecoderOptions& options, int max_model_len);

  void Forward(ForwardContext& context, const TensorView& hidden) const override;
  void ComputeLogits(ForwardContext& context, const TensorView& hidden, const TensorView& logits) const override;
  size_t weight_bytes() const override;

  static ModelFootprint Footprint(const ModelConfig& config, const TensorParallel& tp, DType dtype);

 private:
  struct Layer {
    Tensor input_norm;
    Attention attention;
    Tensor post_attention_norm;
    Tensor pre_mlp_norm;  // sandwich norms only
    GatedMlp mlp;
    Tensor post_mlp_norm;  // sandwich norms only
  };

  Layer BuildLayer(const BuildContext& context, int index) const;

  ModelConfig config_;
  DecoderOptions options_;
  mutable std::vector<RotaryTable> rotary_tables_;  // one a RoPE setting; filled in as positions come
  std::unique_ptr<ParallelLMHead> lm_head_;
  std::unique_ptr<VocabParallelEmbedding> embedding_;
  std::vector<Layer> layers_;
  Tensor final_norm_;
};

}  // namespace heddle
