// What the kernels behind RotateAndStore share: their arguments, which tokens a thread has, and how pairs are rotated.
#pragma once

#include "common/launch.h"
#include "kernels/rows.cuh"

namespace heddle::cuda {

inline constexpr int kRotateThreads = 128;

struct RotateArguments {
  const int32_t* positions;
  const float* cos_sin;
  const int64_t* slot_mapping;
  void* q;
  void* k;
  const void* v;
  int64_t q_stride;
  int64_t k_stride;
  int64_t v_stride;
  void* keys;
  void* values;
  int64_t num_tokens;
  int64_t num_slots;
  int32_t max_positions;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t half;         // of the rotated elements of a head
  int32_t block_shift;  // binary logarithm of the cache's block size
};

// Whether there is such a slot; where not, the token is padding.
__device__ __forceinline__ bool IsSlot(const RotateArguments& a, int64_t slot) {
  return slot >= 0 && slot < a.num_slots;
}

// Calls body(token, prepare(token)) for the calling thread's tokens, of which there is one at least: what `prepare`
// reads for the first of them is what no op writes, and comes before the kernel ahead has ended.
template <typename Prepare, typename Body>
__device__ __forceinline__ void ForMyTokens(const RotateArguments& a, const Prepare& prepare, const Body& body) {
  int64_t token = blockIdx.y;
  auto prepared = prepare(token);
  WaitForPrevious();
  for (;;) {
    body(token, prepared);
    token += gridDim.y;
    if (token >= a.num_tokens) return;
    prepared = prepare(token);
  }
}

// The cosines of a token's angles, then their sines.
__device__ __forceinline__ const float* AnglesOf(const RotateArguments& a, int64_t token) {
  // As unsigned, so that a negative position is beyond the table too.
  const auto position = min(static_cast<uint32_t>(a.positions[token]), static_cast<uint32_t>(a.max_positions - 1));
  return a.cos_sin + int64_t{position} * (2 * a.half);
}

// A token's slot, and the angles of kSize pairs of its elements.
template <int kSize>
struct Rotation {
  __device__ __forceinline__ Rotation(const RotateArguments& a, int64_t token, int column)
      : slot(a.slot_mapping[token]) {
    if (!IsSlot(a, slot)) return;
    const float* const angles = AnglesOf(a, token) + column;
    LoadFloats(angles, cosine);
    LoadFloats(angles + a.half, sine);
  }

  int64_t slot;
  float cosine[kSize];
  float sine[kSize];
};

// Of one head of a token in the keys or values of the cache, counted in tokens and heads.
__device__ __forceinline__ int64_t CacheRow(const RotateArguments& a, int64_t slot, int head) {
  const int64_t block = slot >> a.block_shift;
  const int64_t offset = slot - (block << a.block_shift);
  return ((block * a.num_kv_heads + head) << a.block_shift) + offset;
}

// Rotates kSize pairs of a head, whose first elements begin at `x`, and leaves them there and in `first` and `second`.
template <typename T, int kSize>
__device__ __forceinline__ void RotatePairs(T* x, int half, const Rotation<kSize>& rotation, float (&first)[kSize],
                                            float (&second)[kSize]) {
  LoadFloats(x, first);
  LoadFloats(x + half, second);
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    const float rotated = first[i] * rotation.cosine[i] - second[i] * rotation.sine[i];
    second[i] = second[i] * rotation.cosine[i] + first[i] * rotation.sine[i];
    first[i] = rotated;
  }
  StoreFloats(first, x);
  StoreFloats(second, x + half);
}

// A grid of so many columns and a row for each token, as far as ForMyTokens needs them.
inline dim3 RotateGrid(const RotateArguments& a, int num_columns) {
  constexpr int64_t kMaxGridY = 65535;
  return dim3(static_cast<unsigned>(num_columns), static_cast<unsigned>(std::min(a.num_tokens, kMaxGridY)));
}

// Of an int8 cache; T is that of q, k and v. Vectors: as RotateAndStore finds that it takes them.
void RotateAndStoreInt8(const HeddleCudaStream& stream, HeddleCudaDType dtype, bool vectors, const RotateArguments& a);

}  // namespace heddle::cuda
