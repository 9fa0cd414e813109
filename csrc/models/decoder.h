// The decoder that the dense families share: embedding, layers of attention and gated MLP around a residual stream,
// final norm, output head. Families differ in their config and in DecoderOptions.
#pragma once

#include <memory>
#include <vector>

#include "base/device_type.h"
#include "layers/vocab_parallel_embedding.h"
#include "models/causal_lm.h"
#include "models/decoder_weights.h"
#include "models/rotary_table.h"

namespace heddle {

class Decoder : public CausalLM {
 public:
  // Fails with kModelFormat as CheckWeights does, before anything is read, and as StoredTensor::Read does.
  Decoder(const BuildContext& context, const ModelConfig& config, const DecoderOptions& options, int max_model_len);

  void Forward(ForwardContext& context, const TensorView& hidden) const override;
  void ComputeLogits(ForwardContext& context, const TensorView& hidden, const TensorView& logits) const override;
  size_t weight_bytes() const override;

  static ModelFootprint Footprint(const ModelConfig& config, const DecoderOptions& options, const TensorParallel& tp,
                                  const WeightFormats& formats, DeviceType device);

 private:
  struct Layer {
    Tensor input_norm;
    Attention attention;
    Tensor post_attention_norm;
    Tensor pre_mlp_norm;  // sandwich norms only
    GatedMlp mlp;
    Tensor post_mlp_norm;  // sandwich norms only
  };

  Layer BuildLayer(const BuildContext& context, const DecoderLayerWeights& weights, int index) const;

  ModelConfig config_;
  DecoderOptions options_;
  mutable std::vector<RotaryTable> rotary_tables_;  // one a RoPE setting; filled in as positions come
  std::unique_ptr<ParallelLMHead> lm_head_;
  std::unique_ptr<VocabParallelEmbedding> embedding_;
  std::vector<Layer> layers_;
  Tensor final_norm_;
};

}  // namespace heddle
