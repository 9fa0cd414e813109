#include "quant/quantize_rows.h"

#include <limits>
#include <type_traits>

#include "common/launch.h"
#include "common/rounding.h"
#include "quant/make_panels.cuh"

namespace heddle::cuda {
namespace {

// The elements of words. The compiler is not to know that they are the same each time: it would keep them all as
// floats.
template <typename T>
__device__ __forceinline__ Pack<T> PackOf(uint4 words) {
  asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w));
  return *reinterpret_cast<const Pack<T>*>(&words);
}

// The largest magnitude so far; NaN once there was one.
__device__ __forceinline__ float Larger(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

template <typename T>
__device__ __forceinline__ float LargestOf(const Pack<T>& pack, float largest) {
#pragma unroll
  for (const T value : pack.values) largest = Larger(largest, fabsf(ToFloat(value)));
  return largest;
}

__device__ __forceinline__ float LargestOfBlock(float largest) {
  __shared__ float of_warps[kQuantizeThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    largest = Larger(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (const float other : of_warps) largest = Larger(largest, other);
  return largest;
}

// Writes the elements of a row from `at` on.
template <typename T>
__device__ __forceinline__ void StoreQuantized(const RowsToInt8& op, const Pack<T>& pack, float inverse, int64_t row,
                                               int at) {
  uint32_t words[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < Pack<T>::kSize; ++i) {
    const int q = __float2int_rn(ToFloat(pack.values[i]) * inverse);
    words[i / 4] |= static_cast<uint32_t>(q & 0xff) << i % 4 * 8;
  }
  *reinterpret_cast<uint2*>(op.q + row * op.q_stride + at) = {words[0], words[1]};
}

// By all threads of a block. Of a row of more than 16,384 elements the rest is read twice.
template <typename T, bool kOutliers, bool kWhole>
__device__ __forceinline__ void QuantizeRow(const RowsToInt8& op, int64_t row) {
  constexpr int kStride = kQuantizeThreads * Pack<T>::kSize;
  const T* const x = static_cast<const T*>(op.x) + row * op.x_stride;
  const int first = static_cast<int>(threadIdx.x) * Pack<T>::kSize;
  const OutlierTest<T> test(op.threshold);
  const auto without_outliers = [&](const uint4& words) { return kOutliers ? test.Without(words) : words; };

  uint4 held[kHeldPacks];
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kHeldPacks; ++i) {
    if (first + i * kStride < op.size) held[i] = LoadWords<kWhole>(x, first + i * kStride, op.size);
  }
#pragma unroll
  for (int i = 0; i < kHeldPacks; ++i) {
    if (first + i * kStride >= op.size) continue;
    held[i] = without_outliers(held[i]);
    largest = LargestOf(PackOf<T>(held[i]), largest);
  }
  for (int at = first + kHeldPacks * kStride; at < op.size; at += kStride) {
    largest = LargestOf(PackOf<T>(without_outliers(LoadWords<kWhole>(x, at, op.size))), largest);
  }
  largest = LargestOfBlock(largest);

  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool finite = largest < kInfinity;
  const float quotient = 127.0f / largest;
  const float inverse = finite && quotient < kInfinity ? quotient : 0.0f;
  if (threadIdx.x == 0) op.scales[row] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
#pragma unroll
  for (int i = 0; i < kHeldPacks; ++i) {
    const int at = first + i * kStride;
    if (at < op.size) StoreQuantized(op, PackOf<T>(held[i]), inverse, row, at);
  }
  for (int at = first + kHeldPacks * kStride; at < op.size; at += kStride) {
    StoreQuantized(op, PackOf<T>(without_outliers(LoadWords<kWhole>(x, at, op.size))), inverse, row, at);
  }
}

// Where there are outliers, blocks that make panels; then a block a row.
template <typename T, bool kOutliers, bool kWhole>
__global__ void __launch_bounds__(kQuantizeThreads, 4) QuantizeRowsKernel(RowsToInt8 op) {
  AllowNext();
  WaitForPrevious();
  const auto block = static_cast<int>(blockIdx.x);
  const int num_others = static_cast<int>(gridDim.x) - op.num_rows;
  if constexpr (kOutliers) {
    const int blocks_of_row = (op.size + op.columns_of_block - 1) / op.columns_of_block;
    extern __shared__ uint4 strip[];
    if (block < num_others) {
      return MakePanels<T, kWhole>(op, block / blocks_of_row, block % blocks_of_row, reinterpret_cast<uint8_t*>(strip));
    }
  }
  QuantizeRow<T, kOutliers, kWhole>(op, block - num_others);
}

// `num_others`: blocks beside those of rows.
template <bool kOutliers>
void LaunchQuantize(const HeddleCudaStream& stream, HeddleCudaDType dtype, const RowsToInt8& op, int64_t num_others) {
  const dim3 grid(static_cast<unsigned>(op.num_rows + num_others));
  DispatchFloat(dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      const auto kernel =
          op.size % 8 == 0 ? QuantizeRowsKernel<T, kOutliers, true> : QuantizeRowsKernel<T, kOutliers, false>;
      const int strip_bytes = kOutliers ? op.rows_of_group * StripRowBytes(op.columns_of_block) : 0;
      AllowShared(kernel, strip_bytes);
      Launch(stream, kernel, grid, dim3(kQuantizeThreads), strip_bytes, op);
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
  op.size = static_cast<int>(x.size);
  op.num_rows = static_cast<int>(x.num_rows);
  return op;
}

}  // namespace

void QuantizeRows(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& q, float* scales) {
  LaunchQuantize<false>(stream, x.dtype, OpOf(x, q, scales), 0);
}

void QuantizeRowsButOutliers(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, float threshold,
                             const HeddleCudaMatrix& q, float* scales, const Outliers& outliers) {
  RowsToInt8 op = OpOf(x, q, scales);
  op.threshold = threshold;
  op.rows_of_group = static_cast<int>(outliers.rows_of_group);
  op.columns_of_step = static_cast<int>(outliers.columns_of_step);
  op.num_steps = static_cast<int>(CeilDiv(x.size, outliers.columns_of_step));
  op.num_panels = outliers.num_panels;
  op.panels = outliers.panels;
  op.columns_of_block = ColumnsOfBlock(op.rows_of_group, op.columns_of_step);
  const int64_t num_groups = CeilDiv(x.num_rows, outliers.rows_of_group);
  LaunchQuantize<true>(stream, x.dtype, op, num_groups * CeilDiv(x.size, op.columns_of_block));
}

}  // namespace heddle::cuda
