// What the kernels of quantize_rows.cu share: their operands, and how x is read.
#pragma once

#include <type_traits>

#include "common/numeric.cuh"
#include "quant/outlier_panel.h"

namespace heddle::cuda {

inline constexpr int kQuantizeThreads = 256;
// Of 8 elements, which a thread has in registers at once.
inline constexpr int kHeldPacks = 8;

struct RowsToInt8 {
  const void* x;
  int8_t* q;
  float* scales;
  int64_t x_stride;
  int64_t q_stride;
  int size;
  int num_rows;
  // Of outliers alone: see Outliers.
  float threshold;
  int rows_of_group;
  int columns_of_step;
  int num_steps;         // of a row
  int columns_of_block;  // whole steps: see ColumnsOfBlock
  uint8_t* num_panels;
  uint8_t* panels;
};

// Eight elements as they arrive: taken apart here, they would be waited for. Zeros beyond the row's end, which may lie
// among them unless kWhole.
template <bool kWhole, typename T>
__device__ __forceinline__ uint4 LoadWords(const T* row, int first, int size) {
  if (kWhole || first + Pack<T>::kSize <= size) return *reinterpret_cast<const uint4*>(row + first);
  const auto* const bits = reinterpret_cast<const uint16_t*>(row);
  uint4 words = {0, 0, 0, 0};
#pragma unroll 1
  for (int i = size - 1; i >= first; --i) {
    words = {words.x << 16 | bits[i], words.y << 16 | words.x >> 16, words.z << 16 | words.y >> 16,
             words.w << 16 | words.z >> 16};
  }
  return words;
}

// Which elements are outliers, two at a time. What is not finite is none: it spoils the row.
template <typename T>
class OutlierTest {
 public:
  __device__ __forceinline__ explicit OutlierTest(float threshold) {
    const auto limit = [&] {
      if constexpr (std::is_same_v<T, __half>) {
        return __half_as_ushort(__float2half_ru(threshold));
      } else {
        return __bfloat16_as_ushort(__float2bfloat16_ru(threshold));
      }
    }();
    limits_ = limit * 0x00010001u;
  }

  // The same elements, but zeros for outliers, or for all others.
  __device__ __forceinline__ uint4 Without(const uint4& words) const {
    return {words.x & ~Mask(words.x), words.y & ~Mask(words.y), words.z & ~Mask(words.z), words.w & ~Mask(words.w)};
  }
  __device__ __forceinline__ uint4 Only(const uint4& words) const {
    return {words.x & Mask(words.x), words.y & Mask(words.y), words.z & Mask(words.z), words.w & Mask(words.w)};
  }

 private:
  static constexpr uint32_t kSigns = 0x80008000u;

  // All bits of outliers, and no others.
  __device__ __forceinline__ uint32_t Mask(uint32_t pair) const {
    // As integers, magnitudes are in the same order; differences of 15 bits that are not negative leave the sign alone.
    constexpr uint32_t kLargest = std::is_same_v<T, __half> ? 0x7bff7bffu : 0x7f7f7f7fu;
    const uint32_t magnitudes = pair & 0x7fff7fffu;
    const uint32_t signs = ((magnitudes | kSigns) - limits_) & ((kLargest | kSigns) - magnitudes) & kSigns;
    return signs | (signs - (signs >> 15));
  }

  uint32_t limits_;
};

}  // namespace heddle::cuda
