// What a dense decoder stores: the names and shapes of its weights follow from its config and its family's options.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "layers/attention.h"
#include "layers/gated_mlp.h"

namespace heddle {

struct DecoderOptions {
  float norm_offset = 0;        // Gemma stores norm weights minus one
  bool sandwich_norms = false;  // norms after attention and MLP as well as before (Gemma 2, 3)
  bool fused_weights = false;   // qkv_proj and gate_up_proj stored as one matrix each (Phi-3)
};

struct DecoderLayerWeights {
  std::string input_norm;
  std::string post_attention_norm;
  std::string pre_mlp_norm;   // empty without sandwich norms
  std::string post_mlp_norm;  // empty without sandwich norms
  AttentionWeights attention;
  GatedMlpWeights mlp;
};

struct DecoderWeights {
  DecoderWeights(const ModelConfig& config, const DecoderOptions& options);

  std::string embedding;
  std::string lm_head;  // the embedding when they are tied
  std::string final_norm;
  std::vector<DecoderLayerWeights> layers;
};

// Fails with kModelFormat when the source lacks one of these weights, has it with another shape, or holds others:
// weights that nothing reads mean an option that we do not compute, better refused than answered wrongly. Reads
// nothing.
void CheckWeights(WeightSource& source, const ModelConfig& config, const DecoderWeights& weights);

}  // namespace heddle
