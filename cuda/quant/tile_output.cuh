// From a consumer's sums to y: scales, bias, activation, one rounding. Outputs of 16 bits go through shared memory,
// where they are transposed, and from there as boxes, while the consumer goes on; float32 is written as it lies, 32
// bytes a row.
#pragma once

#include "common/hopper.cuh"
#include "common/numeric.cuh"
#include "common/shared_memory.cuh"
#include "gemm/activation.cuh"
#include "quant/tile_parameters.h"

namespace heddle::cuda {

template <typename T>
__device__ __forceinline__ uint32_t PackPair(float x, float y) {
  struct alignas(4) Pair {
    T x, y;
  };
  const Pair pair = {FromFloat<T>(x), FromFloat<T>(y)};
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Of this thread's two rows of x in sums[j], where those of sums[0] begin with first_row.
__device__ __forceinline__ float2 RowScalesOf(const float* row_scales, int first_row, int j) {
  return *reinterpret_cast<const float2*>(row_scales + first_row + j * 8 + threadIdx.x % 4 * 2);
}

// By all threads of a consumer, whose buffers these are: kBuffers of them, each large enough for kXRows.
template <typename Sum, int kXRows, int kBuffers>
class TileOutput {
 public:
  // Of sums that are `unit` times what they stand for. `row_scales` are those of x that they still lack; null: 1.
  __device__ __forceinline__ TileOutput(const TileParameters& p, float unit, const float* row_scales, int weight_tile,
                                        int consumer, uint8_t* buffers)
      : p_(p),
        row_scales_(row_scales),
        first_output_((weight_tile * kTileConsumers + consumer) * (p.gated ? 32 : 64)),
        barrier_(1 + consumer),
        buffers_(buffers) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) % 128 / 32;
    output_ = first_output_ + warp * (p.gated ? 8 : 16) + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int weight_row = p.gated ? output_ + half * p.num_outputs : output_ + half * 8;
      const bool valid = p.gated ? output_ < p.num_outputs : weight_row < p.num_outputs;
      scale_[half] = (p.scales != nullptr && valid ? p.scales[weight_row] : 1.0f) / unit;
      bias_[half] = p.bias != nullptr && valid ? p.bias[weight_row] : 0.0f;
    }
  }

  // Of rows of x from first_row on.
  __device__ __forceinline__ void Write(int first_row, const Sum (&sums)[kXRows / 8][4]) {
    first_row_ = first_row;
    switch (p_.y_dtype) {
      case kHeddleCudaFloat16:
        return Write16Bit<__half>(sums);
      case kHeddleCudaBFloat16:
        return Write16Bit<__nv_bfloat16>(sums);
      default:
        return WriteElements<float>(sums);
    }
  }

 private:
  static constexpr int kBufferRows = StoredRows(kXRows);
  static constexpr int kTilesOfBuffer = kBufferRows / 8;
  static constexpr int kParts = kXRows / kBufferRows;
  static_assert(kXRows % kBufferRows == 0 && kBufferRows % kStoredBoxRows == 0);

  __device__ __forceinline__ float2 RowScales(int j) const {
    return row_scales_ == nullptr ? float2{1.0f, 1.0f} : RowScalesOf(row_scales_, first_row_, j);
  }

  // Element e of four as in sums[j].
  __device__ __forceinline__ float Value(const Sum (&sums)[4], int e, const float2& row_scales) const {
    const float row_scale = e % 2 == 0 ? row_scales.x : row_scales.y;
    return static_cast<float>(sums[e]) * row_scale * scale_[e / 2] + bias_[e / 2];
  }

  template <typename T>
  __device__ __forceinline__ void Write16Bit(const Sum (&sums)[kXRows / 8][4]) {
    // Of the last 16 bytes of a row a box writes all, or nothing.
    if (p_.num_outputs % 8 == 0) {
      WriteBoxes<T>(sums);
    } else {
      WriteElements<T>(sums);
    }
  }

  template <typename T>
  __device__ __forceinline__ void WriteBoxes(const Sum (&sums)[kXRows / 8][4]) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      uint8_t* const buffer = buffers_ + num_stored_ % kBuffers * StoreBufferBytes(kXRows);
      const bool stores = threadIdx.x % 128 == 0;
      if (stores) {
        // Others may have stored from elsewhere in the buffers.
        if (num_stored_ == 0) {
          hopper::WaitForStoresToRead<0>();
        } else {
          hopper::WaitForStoresToRead<kBuffers - 1>();
        }
      }
      hopper::SyncNamed(barrier_, 128);
      if (p_.gated) {
        GateIntoBuffer<T>(sums, part, SharedAddress(buffer));
      } else {
        RoundIntoBuffer<T>(sums, part, SharedAddress(buffer));
      }
      hopper::FenceAsyncProxy();
      hopper::SyncNamed(barrier_, 128);
      if (stores) {
        const int row_bytes = p_.gated ? 64 : 128;
#pragma unroll
        for (int row = 0; row < kBufferRows; row += kStoredBoxRows) {
          hopper::StoreBox(p_.y, buffer + row * row_bytes, first_output_, first_row_ + part * kBufferRows + row);
        }
        hopper::CommitStores();
      }
      ++num_stored_;
    }
  }

  // Rows of 64 outputs, 16 of each warp, swizzled as boxes of 128 bytes are.
  template <typename T>
  __device__ __forceinline__ void RoundIntoBuffer(const Sum (&sums)[kXRows / 8][4], int part, uint32_t buffer) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) % 128 / 32;
    const int row = lane / 16 * 8 + lane % 8;
    const uint32_t to = buffer + row * 128 + (((warp * 2 + lane / 8 % 2) ^ row % 8) * 16);
#pragma unroll
    for (int tile = 0; tile < kTilesOfBuffer; tile += 2) {
      uint32_t packs[4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int j = part * kTilesOfBuffer + tile + i;
        const float2 row_scales = RowScales(j);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          packs[2 * i + half] =
              PackPair<T>(Value(sums[j], 2 * half, row_scales), Value(sums[j], 2 * half + 1, row_scales));
        }
      }
      StoreMatricesTransposed(to + tile * 8 * 128, packs);
    }
  }

  // Rows of 32 outputs, 8 of each warp, swizzled as boxes of 64 bytes are.
  template <typename T>
  __device__ __forceinline__ void GateIntoBuffer(const Sum (&sums)[kXRows / 8][4], int part, uint32_t buffer) const {
    constexpr int kTilesAtOnce = kTilesOfBuffer < 4 ? kTilesOfBuffer : 4;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) % 128 / 32;
    const int row = lane % (kTilesAtOnce * 8);
    const uint32_t to = buffer + row * 64 + ((warp ^ row / 2 % 4) * 16);
#pragma unroll
    for (int tile = 0; tile < kTilesOfBuffer; tile += kTilesAtOnce) {
      uint32_t packs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = part * kTilesOfBuffer + tile + i % kTilesAtOnce;
        const float2 row_scales = RowScales(j);
        packs[i] = PackPair<T>(Gated(sums[j], 0, row_scales), Gated(sums[j], 1, row_scales));
      }
      StoreMatricesTransposed(to + tile * 8 * 64, packs);
    }
  }

  __device__ __forceinline__ float Gated(const Sum (&sums)[4], int e, const float2& row_scales) const {
    return ActivateRoughly(p_.activation, Value(sums, e, row_scales)) * Value(sums, e + 2, row_scales);
  }

  template <typename Y>
  __device__ __forceinline__ void WriteElements(const Sum (&sums)[kXRows / 8][4]) const {
    Y* const y = static_cast<Y*>(p_.y_data);
#pragma unroll
    for (int j = 0; j < kXRows / 8; ++j) {
      const float2 row_scales = RowScales(j);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = first_row_ + j * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + e % 2;
        const int output = output_ + e / 2 * 8;
        if (row < p_.num_rows && output < p_.num_outputs) {
          y[row * p_.y_stride + output] = FromFloat<Y>(Value(sums[j], e, row_scales));
        }
      }
    }
  }

  const TileParameters& p_;
  const float* const row_scales_;
  const int first_output_;
  const int barrier_;
  uint8_t* const buffers_;
  int first_row_;
  int num_stored_ = 0;  // buffers
  int output_;          // of this thread's first row of sums
  float scale_[2];
  float bias_[2];
};

}  // namespace heddle::cuda
