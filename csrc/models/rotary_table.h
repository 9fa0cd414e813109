// The angles of rotary position embeddings, position by position. Rank thread only.
#pragma once

#include <vector>

#include "core/model_config.h"
#include "device/cuda_stream.h"
#include "tensor/tensor.h"

namespace heddle {

// A row of a position holds the cosines of rotary_dim / 2 angles, then their sines, times yarn's attention factor: what
// ops::RotateAndStore takes. Frequencies are computed in float32 with the operations of transformers, since at
// position 100,000 one unit in the last place of a frequency is already a visible angle.
//
// Memory is reserved for all positions, and becomes resident as they are filled in.
//
// Type dynamic: position p has the frequencies of a sequence of p + 1 tokens, which are the trained ones up to
// max_position_embeddings (docs/decisions.md, "Dynamic RoPE").
class RotaryTable {
 public:
  // REQUIRES: rope as ParseModelConfig checks it, in particular 2 <= rotary_dim <= head_dim, even.
  // Fails with kInsufficientMemory.
  RotaryTable(const RopeConfig& rope, int head_dim, int max_position_embeddings, int max_positions);

  // Fills in the rows [0, num_positions) that are not there yet. REQUIRES: num_positions <= max_positions.
  void FillTo(int num_positions);

  // Fills in all rows and moves them to the GPU's memory.
  void MoveTo(CudaStream& cuda);

  // [max_positions, rotary_dim] f32; zero where not filled in.
  const Tensor& cos_sin() const { return cos_sin_; }

 private:
  RopeConfig rope_;
  int max_position_embeddings_;
  float scale_;
  std::vector<float> frequencies_;
  int num_filled_ = 0;
  Tensor cos_sin_;
};

}  // namespace heddle
