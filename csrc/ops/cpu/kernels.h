// The table of CPU kernels, one instance per instruction set.
//
// Kernels are the part of an op that one thread does: raw pointers, float32 activations, no checks, no allocation, no
// exceptions. All agree with the float32 references in ops/cpu/reference.h within rounding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cpu_isa.h"

namespace heddle::ops::cpu {

// How weights or cache entries are stored.
enum class Storage : int { kFloat32, kBFloat16, kFloat16, kInt8 };
// Same order as ops::Activation.
enum class GatedKind : int { kSilu, kGeluTanh, kGelu };

// The other half of a gated product: y = activation(x * weight^T + bias) * (x * up^T + up_bias).
struct GatedArgs {
  GatedKind kind;
  // Like those of MatmulArgs.
  const void* up;
  const float* up_scales;
  const int32_t* up_slice_sums;
  const float* up_bias;
};

inline constexpr int kMaxSlices = 8;  // of K
// Rows of x up to which the weights' way from memory decides the speed of a product, not what is done with them.
inline constexpr int64_t kMaxStreamedRows = 32;

struct MatmulArgs {
  const float* x;  // [m, k], rows x_stride apart
  int64_t x_stride;
  int64_t m;
  const void* weight;  // panels of 16 outputs, panel_bytes apart; see ops/packed_matrix.h
  Storage storage;
  bool sparse;  // 2:4
  int64_t panel_bytes;
  const float* scales;        // [n, rounded up to whole panels], of int8 weights
  const int32_t* slice_sums;  // [num_panels, num_slices, 16], likewise
  float outlier_threshold;    // of int8 products: magnitudes of x from here on are not rounded
  int64_t n;
  int num_slices;                // a power of two, at most kMaxSlices
  const int64_t* slice_bounds;   // [num_slices + 1] columns of x
  const int64_t* packed_bounds;  // [num_slices + 1] positions in packed K
  const float* bias;             // [n] or null
  const GatedArgs* gated;        // null: y = x * weight^T (+ bias)
  float* y;                      // [m, n], rows y_stride apart
  int64_t y_stride;
  float* scratch;  // of this thread: as many floats as the kernel's table says
};

struct AttentionArgs {
  const float* q;  // [num_tokens, num_heads, head_dim], tokens q_stride apart
  int64_t q_stride;
  const void* keys;    // [num_blocks, num_kv_heads, head_dim, block_size]
  const void* values;  // [num_blocks, num_kv_heads, block_size, head_dim]
  Storage storage;
  const float* key_scales;    // [num_blocks, num_kv_heads, block_size], of int8 keys
  const float* value_scales;  // likewise
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int block_size;
  float scale;
  float soft_cap;      // 0: off
  int sliding_window;  // 0: off
  float* out;          // like q, tokens out_stride apart
  int64_t out_stride;
  float* scratch;  // of this thread: attention_scratch_floats
};

// A run of neighbouring query tokens of one sequence, for one KV head and all query heads that share it.
struct AttentionTask {
  int first_token;  // row of q and out
  int num_tokens;   // at most kAttentionQueryTile
  int position;     // of first_token in its sequence
  int kv_head;
  const int32_t* block_ids;  // of the sequence
};

// Query tokens that share one pass over keys and values.
inline constexpr int kAttentionQueryTile = 16;
// Context tokens in one online-softmax step, counted from the start of the sequence; fixed, because it is part of the
// result.
inline constexpr int kAttentionPartition = 64;

// Products by instructions that multiply two rounded sides: bfloat16 or int8. Rows of x are rounded and packed first.
struct PackedMatmulKernels {
  // Rows that are packed and multiplied at once, at most.
  int64_t (*block_rows)(const MatmulArgs& args);
  size_t (*packed_bytes)(const MatmulArgs& args);  // of m <= block_rows rows
  int64_t pack_rows;                               // rows are packed in groups of so many
  // Packs groups [begin, end).
  void (*pack)(const MatmulArgs& args, int64_t begin, int64_t end, void* packed);
  void (*matmul)(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end);
  size_t (*scratch_floats)();
  bool widens_int8 = false;  // those that round to bfloat16: multiply int8 weights too
};

struct Kernels {
  // Panels [panel_begin, panel_end) of y. Float32 rows times weights as they are.
  void (*matmul)(const MatmulArgs& args, int64_t panel_begin, int64_t panel_end);
  size_t (*matmul_scratch_floats)();
  const PackedMatmulKernels* packed_matmul;  // takes the place of matmul for weights that it multiplies, or null
  // Int8 weights and rows of x rounded to int8, each slice of a row by its largest magnitude:
  //   y = sum over slices of (sum(int8 * int8) * step of the row's slice + sum over outliers(x * int8)) * scale
  // Sums of integers are exact, so all instruction sets give the same bits where there are no outliers.
  const PackedMatmulKernels* int8_matmul;

  void (*attention)(const AttentionArgs& args, const AttentionTask& task);
  size_t (*attention_scratch_floats)(int num_heads, int num_kv_heads, int head_dim);

  // One row each.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int64_t size, float* y);
  void (*add)(const float* x, float* y, int64_t size);
  void (*soft_cap)(float cap, float* x, int64_t size);
  // One head: pairs (i, i + half).
  void (*rotate)(const float* cos, const float* sin, int64_t half, float* head);
  // y = source * scale + 0, so that a negative zero becomes zero and shards of a vocabulary add up exactly; y may be
  // a float32 source.
  void (*widen)(Storage storage, const void* source, int64_t size, float scale, float* y);
  // Rounds to nearest even; `stride` elements between neighbours in `destination`.
  void (*narrow)(Storage storage, const float* source, int64_t size, void* destination, int64_t stride);
  // The same to int8, as multiples of the scale that it returns: the largest magnitude / 127. Zeros of scale zero where
  // that is below 1e-30, of scale NaN where it is not finite.
  float (*narrow_int8)(const float* source, int64_t size, void* destination, int64_t stride);

  int64_t (*arg_max)(const float* row, int64_t size);
  float (*log_sum_exp)(const float* row, int64_t size);
  float (*exp_and_sum)(float max, float* row, int64_t size);
};

// REQUIRES: this build has kernels for `isa` (always so for what ChooseCpuIsa returns).
const Kernels& KernelsFor(CpuIsa isa);

}  // namespace heddle::ops::cpu
