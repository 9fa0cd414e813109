// The operations that layers are made of: checks here, kernels below.
//
// Each function checks shapes and dtypes on entry (HEDDLE_CHECK: a mismatch is a bug of ours), then runs the kernel
// for the stream's device. Tensors and spans lie in the memory of that device. Outputs are allocated by the caller and
// may not overlap inputs unless said so. Each call's wall time, checks included, is added to the stream's op_time().
//
// T is the type of activations. On CPU it is float32, calls return when the work is done, and results do not depend on
// batch, threads, or, for the vectorised instruction sets, on vector width: see docs/decisions.md, "One order of
// summation". On a GPU it is the type of the weights, and calls return once the kernel is launched.
#pragma once

#include <cstdint>
#include <span>

#include "base/rounding.h"
#include "device/stream.h"
#include "ops/packed_matrix.h"
#include "tensor/tensor.h"

namespace heddle::ops {

enum class Activation { kSilu, kGeluTanh, kGelu };

// y[i] = table[ids[i] - first_id], times scale; rows of ids outside the table are zero, so that vocabulary shards add
// up to the whole.
//
//   ids    [num_tokens]
//   table  [num_rows, hidden]      f32 | bf16 | f16
//   y      [num_tokens, hidden]    f32
void Embedding(Stream& stream, std::span<const int32_t> ids, const TensorView& table, int64_t first_id, float scale,
               const TensorView& y);
// The same from a packed matrix [num_rows, hidden]: for output heads tied to the embedding.
void Embedding(Stream& stream, std::span<const int32_t> ids, const PackedMatrix& table, int64_t first_id, float scale,
               const TensorView& y);

// y = x / sqrt(mean(x^2) + epsilon) * weight, row by row, or head by head when there are three dimensions.
//
//   x       [num_rows, size] or [num_tokens, num_heads, size]   T or f32; dimension 0 may be strided
//   weight  [size]                                              f32
//   y       of the shape of x, T; may be x
void RmsNorm(Stream& stream, const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y);

// residual += x, then y = RmsNorm(residual). All [num_tokens, hidden]; residual f32, x and y T; y may be x.
void AddRmsNorm(Stream& stream, const TensorView& x, const TensorView& residual, const TensorView& weight,
                float epsilon, const TensorView& y);

// y += x. Both [num_tokens, size] f32; rows may be strided. On CPU only.
void Add(Stream& stream, const TensorView& x, const TensorView& y);

// y += bias in every row. y [num_tokens, size] T, bias [size] f32.
void AddBias(Stream& stream, const TensorView& bias, const TensorView& y);

// y = x * weight^T, the sum over K in the order docs/decisions.md fixes; with `bias` [n] f32 added last when given.
//
//   x       [num_tokens, k]   T; rows may be strided
//   weight  [n, k]            packed
//   y       [num_tokens, n]   T or f32; rows may be strided
void Matmul(Stream& stream, const TensorView& x, const PackedMatrix& weight, const TensorView& y,
            const TensorView* bias = nullptr);

// Rows from the beginning of gate to that of up in the matrix of a gated product of `size` outputs: whole panels.
constexpr int64_t GatedHalf(int64_t size, MatrixLayout layout = MatrixLayout::kPanels) {
  return layout == MatrixLayout::kRows ? size : RoundUp(size, kPanelWidth);
}

// y = activation(x * gate^T) * (x * up^T): two products as Matmul does each, joined before they reach memory.
//
//   x        [num_tokens, k]           T; rows may be strided
//   gate_up  [2 * GatedHalf(), k]      packed: gate from row 0 on, up from row GatedHalf() on
//   bias     [2 * GatedHalf()]         f32, laid out alike; may be null
//   y        [num_tokens, size]        T; rows may be strided
void GatedMatmul(Stream& stream, Activation activation, const TensorView& x, const PackedMatrix& gate_up,
                 const TensorView& y, const TensorView* bias = nullptr);

// x = cap * tanh(x / cap), in place. [num_rows, size] f32; rows may be strided.
void SoftCap(Stream& stream, float cap, const TensorView& x);

// y[i] = x[rows[i]]. x [num_tokens, size], y [num_rows, size], both T.
void GatherRows(Stream& stream, const TensorView& x, std::span<const int32_t> rows, const TensorView& y);

// Of what the elements of a head of a token are multiples in an int8 cache: a float32.
inline constexpr int kScaleBytes = 4;

// Views of one layer's cache.
struct KVCacheView {
  // CPU: [num_blocks, num_kv_heads, head_dim, block_size]; GPU: like values.   f32 | bf16 | f16 | int8
  TensorView keys;
  // [num_blocks, num_kv_heads, block_size, head_dim]   same dtype. GPU, int8: scales are beside the elements, as
  // heddle_cuda.h lays them out, and head_dim counts their bytes too.
  TensorView values;
  int block_size = 0;  // a multiple of 16
  // CPU, int8: the scales; else empty.
  TensorView key_scales;    // [num_blocks, num_kv_heads, block_size]   f32
  TensorView value_scales;  // likewise
};

// What becomes of a step's new tokens before they attend: the first rotary_dim elements of every query and key head are
// rotated in place, pairs (i, i + rotary_dim / 2) as Hugging Face checkpoints expect; then keys and values are written
// into their slots, rounded to the cache's dtype. In an int8 cache each head of a key or value has a scale of its own,
// the largest magnitude / 127: zero for zeros, NaN where something is not finite, so that what sees the token is NaN
// too.
//
//   positions     [num_tokens]                           each < cos_sin.dim(0)
//   cos_sin       [max_positions, rotary_dim]            f32: cosines of the rotary_dim / 2 angles, then their sines
//   q             [num_tokens, num_heads * head_dim]     T; rows may be strided
//   k, v          [num_tokens, num_kv_heads * head_dim]  T; rows may be strided
//   slot_mapping  [num_tokens]                           block * block_size + offset
void RotateAndStore(Stream& stream, std::span<const int32_t> positions, const TensorView& cos_sin, const TensorView& q,
                    const TensorView& k, const TensorView& v, std::span<const int64_t> slot_mapping,
                    const KVCacheView& cache);

// Which tokens of a step belong to which sequence, and where their context lies.
struct AttentionMetadata {
  std::span<const int32_t> query_start_loc;  // [num_seqs + 1]: tokens of sequence s are [s], .., [s + 1] - 1
  std::span<const int32_t> seq_lens;         // [num_seqs]: context length including this step's tokens
  std::span<const int32_t> block_table;      // [num_seqs, max_blocks_per_seq]
  int max_blocks_per_seq = 0;
  // Bounds that the host knows; only a GPU, whose host does not see the arrays, needs them.
  int max_query_len = 0;
  int max_seq_len = 0;
};

struct AttentionParams {
  int num_heads = 0;     // of this rank
  int num_kv_heads = 0;  // of this rank; divides num_heads
  int head_dim = 0;      // a multiple of 2; at most 512
  float scale = 0;
  int sliding_window = 0;  // a token sees itself and the window - 1 before it; 0: everything before it
  float soft_cap = 0;      // scores become cap * tanh(score / cap); 0: off
};

// Causal attention of this step's tokens over the paged cache, which already holds their own keys and values. Works
// alike for prompts, single tokens and mixtures. A key outside a token's causal window contributes nothing, not even
// when its slot holds NaN; entries of the block table that no token of the step sees are not read.
//
//   q    [num_tokens, num_heads * head_dim]   T; rows may be strided
//   out  [num_tokens, num_heads * head_dim]   T; rows may be strided
void PagedAttention(Stream& stream, const TensorView& q, const KVCacheView& cache, const AttentionMetadata& metadata,
                    const AttentionParams& params, const TensorView& out);

// Row statistics that sampling needs, in the fixed order of the core. Each is the work of the calling thread, any one:
// who samples several rows at once counts the time of all of it (OpTimer).
//
// Index of the largest element of row [size], the lowest among equals. NaN counts as the largest, so row[ArgMax(row)]
// tells whether there is one. REQUIRES: size > 0.
int64_t ArgMax(CpuIsa isa, std::span<const float> row);
// log(sum(exp(row))), stable; NaN if the row has one. REQUIRES: size > 0.
float LogSumExp(CpuIsa isa, std::span<const float> row);
// row[i] = exp(row[i] - max) for all i, exactly zero where row[i] is -infinity; returns the sum, which is NaN if the
// row has one. `max` is the row's largest element. REQUIRES: max is finite.
float ExpAndSum(CpuIsa isa, float max, std::span<float> row);

}  // namespace heddle::ops
