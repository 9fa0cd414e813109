// A decoder-only language model: what the worker runs, whatever the family.
//
// Built and run on the rank's thread. Calls are collective over the tensor-parallel group.
#pragma once

#include <memory>

#include "core/model_config.h"
#include "layers/context.h"

namespace heddle {

class CausalLM {
 public:
  virtual ~CausalLM() = default;

  // Final hidden states [num_tokens, hidden_size] of a step; writes its keys and values into the cache. `hidden` is
  // the caller's. Fails with kCancelled, and as the communicator does.
  virtual void Forward(ForwardContext& context, const TensorView& hidden) const = 0;

  // On rank 0, logits [num_rows, vocab_size] of hidden states [num_rows, hidden_size]; elsewhere `logits` is ignored.
  virtual void ComputeLogits(ForwardContext& context, const TensorView& hidden, const TensorView& logits) const = 0;

  virtual size_t weight_bytes() const = 0;
};

// Bytes a rank needs; computed from the config alone, before anything loads.
struct ModelFootprint {
  int64_t weight_bytes = 0;                // as CausalLM::weight_bytes() of the loaded model
  int64_t activation_bytes_per_token = 0;  // of the arena, for each token of the largest step
  int64_t bytes_per_position = 0;          // of tables, for each position of the longest sequence
  int num_heads = 0;                       // of this rank
  int num_kv_heads = 0;
};

}  // namespace heddle
