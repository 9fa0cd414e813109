// The two ends of a model: ids to hidden states, and hidden states to logits. Both share out the vocabulary.
//
// With tied embeddings the head's packed matrix serves the lookup too, so that it exists once.
#pragma once

#include <memory>
#include <string>

#include "layers/context.h"
#include "ops/packed_matrix.h"

namespace heddle {

// lm_head [vocab_size, hidden_size], by rows.
class ParallelLMHead {
 public:
  ParallelLMHead(const BuildContext& context, const std::string& name, int64_t vocab_size, int64_t hidden_size);

  const PackedMatrix& weight() const { return weight_; }
  Range shard() const { return shard_; }  // of the vocabulary
  size_t weight_bytes() const { return weight_.size_bytes(); }

  // On rank 0, logits [num_rows, vocab_size] of hidden [num_rows, hidden_size], capped when soft_cap > 0. A collective;
  // `logits` is ignored elsewhere.
  void Forward(ForwardContext& context, const TensorView& hidden, float soft_cap, const TensorView& logits) const;

 private:
  TensorParallel tp_;
  Range shard_;
  PackedMatrix weight_;
};

class VocabParallelEmbedding {
 public:
  // A table of its own: on CPU in its stored form, on a GPU in that of the matrices.
  VocabParallelEmbedding(const BuildContext& context, const std::string& name, int64_t vocab_size, int64_t hidden_size);
  // The head's.
  VocabParallelEmbedding(const TensorParallel& tp, const ParallelLMHead& head);

  VocabParallelEmbedding(const VocabParallelEmbedding&) = delete;
  VocabParallelEmbedding& operator=(const VocabParallelEmbedding&) = delete;

  size_t weight_bytes() const;  // 0 when shared

  // y[i] = table[token_ids[i]] * scale, whole on every rank. y [num_tokens, hidden_size].
  void Forward(ForwardContext& context, float scale, const TensorView& y) const;

 private:
  TensorParallel tp_;
  Range shard_;
  Tensor table_;                          // [shard, hidden_size], or empty
  PackedMatrix rows_;                     // or this
  const PackedMatrix* shared_ = nullptr;  // or the head's
};

}  // namespace heddle
