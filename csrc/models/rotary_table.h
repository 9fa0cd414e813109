// The angles of rotary position embeddings, computed once for all positions.
#pragma once

#include "core/model_config.h"
#include "tensor/tensor.h"

namespace heddle {

// [max_positions, rotary_dim] f32: for each position the cosines of rotary_dim / 2 angles, then their sines, times
// yarn's attention factor; what ops::RotaryEmbedding takes. Frequencies are computed in float32 with the operations
// of transformers, since at position 100,000 one unit in the last place of a frequency is already a visible angle.
//
// Type dynamic: position p has the frequencies of a sequence of p + 1 tokens, which are the trained ones up to
// max_position_embeddings (docs/decisions.md, "Dynamic RoPE").
//
// REQUIRES: rope as ParseModelConfig checks it, in particular 2 <= rotary_dim <= head_dim, even.
// Fails with kInsufficientMemory.
Tensor BuildCosSinTable(const RopeConfig& rope, int head_dim, int max_position_embeddings, int max_positions);

}  // namespace heddle
