// down(activation(gate(x)) * up(x)), spread over the intermediate size.
//
// Immutable after construction; Forward on the rank's thread.
#pragma once

#include "layers/linear.h"

namespace heddle {

struct GatedMlpWeights {
  StoredMatrix gate, up, down;
};

class GatedMlp {
 public:
  GatedMlp(const BuildContext& context, const GatedMlpWeights& weights, ops::Activation activation)
      : gate_up_(context, weights.gate, weights.up, activation), down_(context, weights.down, kShardUnit) {}

  size_t weight_bytes() const { return gate_up_.weight_bytes() + down_.weight_bytes(); }

  // x [num_tokens, hidden_size], in place; whole on every rank; then `next`, if given.
  void Forward(ForwardContext& context, const TensorView& x, const ResidualNorm* next = nullptr) const {
    const Arena::Scope scope(context.arena);
    const TensorView activated = context.arena.Allocate(context.activation_dtype, {x.dim(0), gate_up_.output_size()});
    gate_up_.Forward(context.stream, x, activated);
    down_.Forward(context.stream, activated, x, next);
  }

 private:
  GatedColumnParallelLinear gate_up_;
  RowParallelLinear down_;
};

}  // namespace heddle
