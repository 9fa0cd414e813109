// Linear layers that are spread over a tensor-parallel group. Each slices its own part of the stored weights.
//
//   column-parallel   y_r = x W_r^T          rows of W are shared out; x is whole, y is a part
//   row-parallel      y = sum_r x_r W_r^T    columns of W are shared out; x is a part, y is whole after an all-reduce
//
// How a matrix is stored and multiplied, WeightFormats says; scales and sparse groups are cut with their weights.
//
// Shards are whole multiples of kShardUnit where sizes allow, so that they are whole panels of a packed matrix.
// Immutable after construction; Forward on the rank's thread.
#pragma once

#include <string>
#include <vector>

#include "layers/context.h"
#include "ops/packed_matrix.h"

namespace heddle {

inline constexpr int64_t kShardUnit = 16;

// Where one logical matrix lies in the checkpoint: rows [row_begin, row_begin + rows) of `<prefix>.weight`
// [stored_rows, columns], and of `<prefix>.bias` when there is one.
struct StoredMatrix {
  std::string prefix;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stored_rows = 0;
  int64_t row_begin = 0;
  bool bias = false;

  static StoredMatrix Whole(std::string prefix, int64_t rows, int64_t columns, bool bias) {
    return {std::move(prefix), rows, columns, rows, 0, bias};
  }
};

// What a linear layer tells the observer of its rank, if there is one.
class ObservedInput {
 public:
  ObservedInput(LinearObserver* observer, std::vector<std::string> prefixes)
      : observer_(observer), prefixes_(std::move(prefixes)) {}

  void Observe(Stream& stream, const TensorView& x) const {
    if (observer_ != nullptr) observer_->Observe(stream, prefixes_, x);
  }

 private:
  LinearObserver* observer_;
  std::vector<std::string> prefixes_;
};

// One or more column-parallel matrices over the same input, fused into one product; outputs stand side by side.
class ColumnParallelLinear {
 public:
  struct Part {
    StoredMatrix stored;
    Range shard;  // of stored.rows, taken by this rank
  };

  // Parts agree on whether they have a bias.
  ColumnParallelLinear(const BuildContext& context, const std::vector<Part>& parts);

  int64_t output_size() const { return weight_.n(); }  // of this rank
  size_t weight_bytes() const { return weight_.size_bytes(); }

  // x [num_tokens, columns] -> y [num_tokens, output_size()].
  void Forward(Stream& stream, const TensorView& x, const TensorView& y) const;

 private:
  ObservedInput input_;
  PackedMatrix weight_;
  Tensor bias_;
};

// What a product that ends a branch of the residual stream flows into: residual += y, then y = RmsNorm(residual).
struct ResidualNorm {
  TensorView residual;  // [num_tokens, size] f32
  TensorView weight;    // [size] f32
  float epsilon = 0;
};

class RowParallelLinear {
 public:
  // `unit` as in TensorParallel::Shard: the shard of the input's columns.
  RowParallelLinear(const BuildContext& context, const StoredMatrix& stored, int64_t unit);

  size_t weight_bytes() const { return weight_.size_bytes(); }

  // x [num_tokens, shard of columns] -> y [num_tokens, rows], whole on every rank; then `next`, if given.
  void Forward(Stream& stream, const TensorView& x, const TensorView& y, const ResidualNorm* next = nullptr) const;

 private:
  TensorParallel tp_;
  ObservedInput input_;
  PackedMatrix weight_;
  Tensor bias_;  // whole; added after the sum, alike on every rank
};

// The parts of query, key and value heads that a rank computes. With fewer key-value heads than ranks each is
// computed by size / num_kv_heads neighbouring ranks.
struct HeadShard {
  Range heads;  // in heads
  Range kv_heads;

  // Fails with kInvalidArgument when tp does not divide num_heads, or neither of tp and num_kv_heads divides the other.
  static HeadShard Of(const TensorParallel& tp, int num_heads, int num_kv_heads);
};

// q, k and v over the same input: output [num_tokens, (heads + 2 * kv_heads) * head_dim] of this rank.
ColumnParallelLinear QKVParallelLinear(const BuildContext& context, const StoredMatrix& q, const StoredMatrix& k,
                                       const StoredMatrix& v, const HeadShard& shard, int head_dim);

// activation(gate(x)) * up(x): two column-parallel matrices over the same input, fused into one product.
class GatedColumnParallelLinear {
 public:
  // gate and up agree on their shape and on whether they have a bias.
  GatedColumnParallelLinear(const BuildContext& context, const StoredMatrix& gate, const StoredMatrix& up,
                            ops::Activation activation);

  int64_t output_size() const { return output_size_; }  // of this rank
  size_t weight_bytes() const { return weight_.size_bytes(); }

  // x [num_tokens, columns] -> y [num_tokens, output_size()].
  void Forward(Stream& stream, const TensorView& x, const TensorView& y) const;

 private:
  ops::Activation activation_;
  int64_t output_size_;
  ObservedInput input_;
  PackedMatrix weight_;
  Tensor bias_;
};

}  // namespace heddle
