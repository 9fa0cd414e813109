#include "quant/quantize_rows.h"

#include <limits>
#include <type_traits>

#include "common/launch.h"
#include "common/numeric.cuh"
#include "common/rounding.h"

namespace heddle::cuda {
namespace {

constexpr int kThreads = 256;
// Of a row, in registers: 16,384 elements; of a longer row the rest is read twice.
constexpr int kHeldPacks = 8;
// A bit for each part of the longest row that is quantised, 2^17 elements.
constexpr int kMaxMarkWords = (1 << 17) / kOutlierColumns / 32;

struct RowsToInt8 {
  const void* x;
  int8_t* q;
  float* scales;
  int64_t x_stride;
  int64_t q_stride;
  int64_t size;
  int64_t num_rows;
  // Of outliers alone.
  float threshold;
  void* outliers;
  int64_t outlier_stride;
  int64_t columns_of_part;
  int64_t rows_of_group;
  int num_parts;             // of a row
  int32_t* parts_of_groups;  // how many have outliers
  int32_t* parts;            // [groups, num_parts]: which
  uint32_t* marks;  // [groups, words of a row + 1], zero between ops: a bit a part, then how many rows are done
};

// Zeros beyond the row's end.
template <typename T>
__device__ __forceinline__ Pack<T> LoadPack(const T* row, int64_t first, int64_t size) {
  if (first + Pack<T>::kSize <= size) return *reinterpret_cast<const Pack<T>*>(row + first);
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < Pack<T>::kSize; ++i) {
    pack.values[i] = first + i < size ? row[first + i] : FromFloat<T>(0);
  }
  return pack;
}

// The largest magnitude so far; NaN once there was one.
__device__ __forceinline__ float Larger(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

// What is not finite is no outlier: it spoils the row.
template <bool kOutliers>
__device__ __forceinline__ bool IsOutlier(float x, float threshold) {
  return kOutliers && fabsf(x) >= threshold && fabsf(x) < std::numeric_limits<float>::infinity();
}

template <bool kOutliers, typename T>
__device__ __forceinline__ float LargestOf(const Pack<T>& pack, float threshold, float largest) {
#pragma unroll
  for (const T value : pack.values) {
    const float x = ToFloat(value);
    if (!IsOutlier<kOutliers>(x, threshold)) largest = Larger(largest, fabsf(x));
  }
  return largest;
}

__device__ __forceinline__ float LargestOfBlock(float largest) {
  __shared__ float of_warps[kThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    largest = Larger(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (const float other : of_warps) largest = Larger(largest, other);
  return largest;
}

// Writes the elements of a row from `at` on, and marks the part that they lie in where there are outliers among them.
template <bool kOutliers, typename T>
__device__ __forceinline__ void StoreQuantized(const RowsToInt8& op, const Pack<T>& pack, float inverse, int64_t row,
                                               int64_t at, uint32_t* marks) {
  uint32_t words[2] = {0, 0};
  Pack<T> outliers;
  bool any = false;
#pragma unroll
  for (int i = 0; i < Pack<T>::kSize; ++i) {
    const float x = ToFloat(pack.values[i]);
    const bool outlier = IsOutlier<kOutliers>(x, op.threshold);
    const int q = outlier ? 0 : __float2int_rn(x * inverse);
    words[i / 4] |= static_cast<uint32_t>(q & 0xff) << i % 4 * 8;
    outliers.values[i] = outlier ? pack.values[i] : FromFloat<T>(0);
    any = any || outlier;
  }
  *reinterpret_cast<uint2*>(op.q + row * op.q_stride + at) = {words[0], words[1]};
  if constexpr (kOutliers) {
    *reinterpret_cast<Pack<T>*>(static_cast<T*>(op.outliers) + row * op.outlier_stride + at) = outliers;
    const auto part = static_cast<int>(at / op.columns_of_part);
    if (any) atomicOr(&marks[part / 32], 1u << part % 32);
  }
}

// Adds the block's marks to its group's; the group's last block makes a list of them.
__device__ __forceinline__ void ListParts(const RowsToInt8& op, int64_t row, const uint32_t* marks) {
  __shared__ bool is_last;
  const int64_t group = row / op.rows_of_group;
  const int num_words = (op.num_parts + 31) / 32;
  uint32_t* const of_group = op.marks + group * (num_words + 1);
  __syncthreads();
  for (int i = threadIdx.x; i < num_words; i += kThreads) {
    if (marks[i] != 0) atomicOr(&of_group[i], marks[i]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const int64_t rows = min(op.rows_of_group, op.num_rows - group * op.rows_of_group);
    is_last = atomicAdd(&of_group[num_words], 1) == static_cast<uint32_t>(rows - 1);
    if (is_last) of_group[num_words] = 0;
  }
  __syncthreads();
  if (!is_last || threadIdx.x >= 32) return;
  const int lane = threadIdx.x;
  int count = 0;
  for (int first = 0; first < num_words; first += 32) {
    uint32_t bits = first + lane < num_words ? atomicExch(&of_group[first + lane], 0) : 0;
    int before = __popc(bits);
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, before, offset);
      if (lane >= offset) before += other;
    }
    const int all = __shfl_sync(0xffffffffu, before, 31);
    int32_t* to = op.parts + group * op.num_parts + count + before - __popc(bits);
    for (; bits != 0; bits &= bits - 1) *to++ = (first + lane) * 32 + __ffs(static_cast<int>(bits)) - 1;
    count += all;
  }
  if (lane == 0) op.parts_of_groups[group] = count;
}

// A block a row.
template <typename T, bool kOutliers>
__global__ void __launch_bounds__(kThreads) QuantizeRowsKernel(RowsToInt8 op) {
  constexpr int64_t kStride = int64_t{kThreads} * Pack<T>::kSize;
  __shared__ uint32_t marks[kOutliers ? kMaxMarkWords : 1];
  AllowNext();
  WaitForPrevious();
  const int64_t row = blockIdx.x;
  const T* const x = static_cast<const T*>(op.x) + row * op.x_stride;
  const int64_t first = int64_t{threadIdx.x} * Pack<T>::kSize;
  if constexpr (kOutliers) {
    for (int i = threadIdx.x; i < kMaxMarkWords; i += kThreads) marks[i] = 0;
  }

  Pack<T> held[kHeldPacks];
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kHeldPacks; ++i) {
    if (first + i * kStride < op.size) held[i] = LoadPack(x, first + i * kStride, op.size);
  }
#pragma unroll
  for (int i = 0; i < kHeldPacks; ++i) {
    if (first + i * kStride < op.size) largest = LargestOf<kOutliers>(held[i], op.threshold, largest);
  }
  for (int64_t at = first + kHeldPacks * kStride; at < op.size; at += kStride) {
    largest = LargestOf<kOutliers>(LoadPack(x, at, op.size), op.threshold, largest);
  }
  largest = LargestOfBlock(largest);

  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool finite = largest < kInfinity;
  const float quotient = 127.0f / largest;
  const float inverse = finite && quotient < kInfinity ? quotient : 0.0f;
  if (threadIdx.x == 0) op.scales[row] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
#pragma unroll
  for (int i = 0; i < kHeldPacks; ++i) {
    const int64_t at = first + i * kStride;
    if (at < op.size) StoreQuantized<kOutliers>(op, held[i], inverse, row, at, marks);
  }
  for (int64_t at = first + kHeldPacks * kStride; at < op.size; at += kStride) {
    StoreQuantized<kOutliers>(op, LoadPack(x, at, op.size), inverse, row, at, marks);
  }
  if constexpr (kOutliers) ListParts(op, row, marks);
}

template <bool kOutliers>
void LaunchQuantize(const HeddleCudaStream& stream, HeddleCudaDType dtype, const RowsToInt8& op) {
  DispatchFloat(dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      Launch(stream, QuantizeRowsKernel<T, kOutliers>, dim3(static_cast<unsigned>(op.num_rows)), dim3(kThreads), 0, op);
    }
  });
}

RowsToInt8 OpOf(const HeddleCudaMatrix& x, const HeddleCudaMatrix& q, float* scales) {
  RowsToInt8 op{};
  op.x = x.data;
  op.q = static_cast<int8_t*>(q.data);
  op.scales = scales;
  op.x_stride = x.stride;
  op.q_stride = q.stride;
  op.size = x.size;
  op.num_rows = x.num_rows;
  return op;
}

}  // namespace

void QuantizeRows(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& q, float* scales) {
  LaunchQuantize<false>(stream, x.dtype, OpOf(x, q, scales));
}

void QuantizeRowsButOutliers(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, float threshold,
                             const HeddleCudaMatrix& q, float* scales, const Outliers& outliers) {
  RowsToInt8 op = OpOf(x, q, scales);
  op.threshold = threshold;
  op.outliers = outliers.values.data;
  op.outlier_stride = outliers.values.stride;
  op.columns_of_part = outliers.columns_of_part;
  op.rows_of_group = outliers.rows_of_group;
  op.num_parts = static_cast<int>(CeilDiv(x.size, outliers.columns_of_part));
  op.parts_of_groups = outliers.num_parts;
  op.parts = outliers.parts;
  op.marks = stream.counters;
  LaunchQuantize<true>(stream, x.dtype, op);
}

}  // namespace heddle::cuda
