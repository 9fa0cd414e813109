// One row of logits, 256 at a time by a warp, and the numbers that sampling makes of them.
#pragma once

#include <cstdint>

#include "common/numeric.cuh"
#include "kernels/philox.cuh"
#include "kernels/sampling.h"

namespace heddle::cuda::sampling {

constexpr int kPerLane = kBlockSize / 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kInfinity = __builtin_inff();

// Logit `j` of a lane's part of a block. A lane has two runs of four, so that a warp reads whole lines.
__device__ __forceinline__ int TokenOf(int block, int lane, int j) {
  return block * kBlockSize + j / 4 * (kBlockSize / 2) + lane * 4 + j % 4;
}

// The lane's logits of a block; -infinity beyond the vocabulary.
__device__ __forceinline__ void LoadBlock(const float* logits, int vocab_size, int block, int lane,
                                          float (&x)[kPerLane]) {
#pragma unroll
  for (int run = 0; run < kPerLane; run += 4) {
    const int first = TokenOf(block, lane, run);
    if (first + 4 <= vocab_size) {
      const Pack<float> pack = *reinterpret_cast<const Pack<float>*>(logits + first);
#pragma unroll
      for (int j = 0; j < 4; ++j) x[run + j] = pack.values[j];
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) x[run + j] = first + j < vocab_size ? logits[first + j] : -kInfinity;
    }
  }
}

// The logits of one row as the model gave them, or as lists and penalties left them.
struct RowView {
  const float* logits;
  int vocab_size;
  const uint8_t* changed;  // null: none
  const float* processed;

  __device__ __forceinline__ void Load(int block, int lane, float (&x)[kPerLane]) const {
    LoadBlock(logits, vocab_size, block, lane, x);
    if (changed == nullptr) return;
    const unsigned bits = changed[block * 32 + lane];
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (bits >> j & 1) x[j] = processed[TokenOf(block, lane, j)];
    }
  }

  // One logit alone.
  __device__ __forceinline__ float At(int token) const {
    const int place = token % kBlockSize;
    const int lane = place % (kBlockSize / 2) / 4;
    const int j = place / (kBlockSize / 2) * 4 + place % 4;
    const bool is_changed = changed != nullptr && (changed[token / kBlockSize * 32 + lane] >> j & 1) != 0;
    return is_changed ? processed[token] : logits[token];
  }
};

__device__ __forceinline__ const float* LogitsOfRow(const Step& step, int64_t row) {
  return static_cast<const float*>(step.op.logits.data) + row * step.op.logits.stride;
}

__device__ __forceinline__ bool IsProcessed(const Step& step, const HeddleCudaSampleRow& row) {
  const bool penalizes = row.history_begin >= 0 && (row.repetition_penalty != 1.0f || row.frequency_penalty != 0.0f ||
                                                    row.presence_penalty != 0.0f);
  return step.op.process_logits != 0 && row.given_token < 0 &&
         (penalizes || row.allowed_ids.count > 0 || row.banned_ids.count > 0 || row.logit_bias.count > 0);
}

// e^value for a value that is at most 0, the bits of the CPU's kernels: both then hold the same tokens for equal and
// put them into the same order. Zero below -87.7, exactly 1 at 0.
__device__ __forceinline__ float WeightOf(float value) {
  const float x = fmaxf(value, -88.0f);
  const float n = rintf(__fmul_rn(x, 1.44269504088896341f));
  float r = __fmaf_rn(n, -0.693359375f, x);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 0.00138706574f;
  p = __fmaf_rn(p, r, 0.00836626161f);
  p = __fmaf_rn(p, r, 0.0416674353f);
  p = __fmaf_rn(p, r, 0.166665465f);
  p = __fmaf_rn(p, r, 0.49999997f);
  const float fraction = __fmaf_rn(__fmul_rn(r, r), p, r);
  return __fmul_rn(__fadd_rn(fraction, 1.0f), __int_as_float((static_cast<int>(n) + 127) << 23));
}

// Sums of weights are sums of integers: exact, and the same in any order. A weight is at most 1, and weighs 2^62 at
// most together with all others.
class FixedPoint {
 public:
  __device__ explicit FixedPoint(int id_bits) : scale_(static_cast<double>(uint64_t{1} << (62 - id_bits))) {}

  __device__ uint64_t operator()(double weight) const { return __double2ull_rn(weight * scale_); }
  __device__ double One() const { return scale_; }

 private:
  double scale_;
};

// Larger floats have larger numbers; both zeros have the same.
__device__ __forceinline__ uint32_t OrderOf(float x) {
  const auto bits = static_cast<uint32_t>(__float_as_int(__fadd_rn(x, 0.0f)));
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float FloatOfOrder(uint32_t order) {
  return __int_as_float(static_cast<int>(order >> 31 ? order & 0x7fffffffu : ~order));
}

// The random number of one token, uniform over the multiples of 2^-53 in [0, 1), as on CPU.
__device__ __forceinline__ double UniformForToken(const HeddleCudaSampleRow& row) {
  const uint4 random =
      Philox4x32(make_uint4(static_cast<uint32_t>(row.position), 0, static_cast<uint32_t>(row.sequence_index), 0),
                 make_uint2(static_cast<uint32_t>(row.seed), static_cast<uint32_t>(row.seed >> 32)));
  const uint64_t bits = (uint64_t{random.x} << 32 | random.y) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace heddle::cuda::sampling
