// RmsNorm and AddRmsNorm. A row, or a head of one, is read once and stays in registers between the sum of its squares
// and the output. A group of threads has it: up to 32 lanes of a warp, several groups a block, or a whole block.
#include <bit>
#include <type_traits>

#include "common/launch.h"
#include "common/ops.h"
#include "kernels/rows.cuh"

namespace heddle::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kWarpSize = 32;
// Vectors that a thread holds of a row longer than a block has threads.
constexpr int kVectorsOfLongRow = 4;

struct NormArguments {
  const void* x;
  int64_t x_stride;
  float* residual;  // null: x is normalised as it is
  int64_t residual_stride;
  const float* weight;
  float epsilon;
  void* y;
  int64_t y_stride;
  uint32_t num_parts;  // rows times heads
  uint32_t num_heads;
  int32_t size;  // of a part
};

// The beginnings of one part.
template <typename TX, typename TY>
struct Part {
  const TX* x;
  float* residual;
  TY* y;

  __device__ Part(const NormArguments& a, uint32_t part) {
    const int64_t row = part / a.num_heads;
    const int64_t column = int64_t{part % a.num_heads} * a.size;
    x = static_cast<const TX*>(a.x) + row * a.x_stride + column;
    residual = a.residual + row * a.residual_stride + column;
    y = static_cast<TY*>(a.y) + row * a.y_stride + column;
  }
};

// Sum over the threads of a group: blockDim.x of them, a power of two up to 32, or else the whole block.
__device__ __forceinline__ float GroupSum(float x) {
  if (blockDim.x > kWarpSize) {
    __shared__ float shared[kWarpSize];
    return BlockSum(x, shared);
  }
  for (int offset = static_cast<int>(blockDim.x) / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  }
  return x;
}

__device__ __forceinline__ float InverseRms(float sum_of_squares, const NormArguments& a) {
  return rsqrtf(sum_of_squares / static_cast<float>(a.size) + a.epsilon);
}

// Parts of at most kVectors vectors a thread; blockDim.y of them a block. Every thread reaches GroupSum.
template <typename TX, typename TY, bool kAdd, int kVectors>
__global__ void __launch_bounds__(kMaxThreads) NormInRegisters(const NormArguments a) {
  AllowNext();
  const uint32_t index = blockIdx.x * blockDim.y + threadIdx.y;
  const Part<TX, TY> part(a, index);
  const auto offset = [&](int i) { return static_cast<int>(threadIdx.x + i * blockDim.x) * kVectorSize; };
  const auto is_mine = [&](int i) { return index < a.num_parts && offset(i) < a.size; };

  // A short row's weight fits into registers: loaded while the kernel before still runs.
  float weight[kVectorSize] = {};
  if (kVectors == 1 && is_mine(0)) LoadFloats(a.weight + offset(0), weight);
  if (kAdd && is_mine(0)) PrefetchToL2(part.residual + offset(0));
  WaitForPrevious();

  float values[kVectors][kVectorSize] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (!is_mine(i)) continue;
    LoadFloats(part.x + offset(i), values[i]);
    if constexpr (kAdd) {
      float residual[kVectorSize];
      LoadFloats(part.residual + offset(i), residual);
#pragma unroll
      for (int j = 0; j < kVectorSize; ++j) values[i][j] += residual[j];
    }
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (kAdd && is_mine(i)) StoreFloats(values[i], part.residual + offset(i));
#pragma unroll
    for (float value : values[i]) sum = fmaf(value, value, sum);
  }
  const float scale = InverseRms(GroupSum(sum), a);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (!is_mine(i)) continue;
    if (kVectors > 1) LoadFloats(a.weight + offset(i), weight);
#pragma unroll
    for (int j = 0; j < kVectorSize; ++j) values[i][j] *= scale * weight[j];
    StoreFloats(values[i], part.y + offset(i));
  }
}

// Parts of any size and alignment, one a block, read twice.
template <typename TX, typename TY, bool kAdd>
__global__ void __launch_bounds__(kMaxThreads) NormReadTwice(const NormArguments a) {
  AllowNext();
  const Part<TX, TY> part(a, blockIdx.x);
  WaitForPrevious();
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < a.size; i += static_cast<int>(blockDim.x)) {
    float value = ToFloat(part.x[i]);
    if constexpr (kAdd) {
      value += part.residual[i];
      part.residual[i] = value;
    }
    sum = fmaf(value, value, sum);
  }
  __shared__ float shared[kWarpSize];
  const float scale = InverseRms(BlockSum(sum, shared), a);
  for (int i = static_cast<int>(threadIdx.x); i < a.size; i += static_cast<int>(blockDim.x)) {
    const float value = kAdd ? part.residual[i] : ToFloat(part.x[i]);
    part.y[i] = FromFloat<TY>(value * (scale * a.weight[i]));
  }
}

unsigned WholeWarps(int threads) {
  return static_cast<unsigned>(std::min(kMaxThreads, (threads + kWarpSize - 1) / kWarpSize * kWarpSize));
}

template <typename TX, typename TY, bool kAdd>
void LaunchNorm(const HeddleCudaStream& stream, const NormArguments& a, bool vectors) {
  const int num_vectors = a.size / kVectorSize;
  if (!vectors || num_vectors > kVectorsOfLongRow * kMaxThreads) {
    Launch(stream, NormReadTwice<TX, TY, kAdd>, dim3(a.num_parts), dim3(WholeWarps(a.size)), 0, a);
  } else if (num_vectors <= kWarpSize) {
    constexpr unsigned kThreads = 128;
    const unsigned lanes = std::bit_ceil(static_cast<unsigned>(num_vectors));
    const unsigned parts_per_block = kThreads / lanes;
    const unsigned blocks = (a.num_parts - 1) / parts_per_block + 1;
    Launch(stream, NormInRegisters<TX, TY, kAdd, 1>, dim3(blocks), dim3(lanes, parts_per_block), 0, a);
  } else if (num_vectors <= kMaxThreads) {
    Launch(stream, NormInRegisters<TX, TY, kAdd, 1>, dim3(a.num_parts), dim3(WholeWarps(num_vectors)), 0, a);
  } else {
    const int threads = (num_vectors + kVectorsOfLongRow - 1) / kVectorsOfLongRow;
    Launch(stream, NormInRegisters<TX, TY, kAdd, kVectorsOfLongRow>, dim3(a.num_parts), dim3(WholeWarps(threads)), 0,
           a);
  }
}

void CheckSameShape(const HeddleCudaMatrix& x, const HeddleCudaMatrix& other, const char* message) {
  Require(x.num_rows == other.num_rows && x.size == other.size, message);
}

}  // namespace

void RmsNorm(HeddleCudaStream& stream, const HeddleCudaRmsNorm& op) {
  CheckMatrix(op.x, "rms_norm: x");
  CheckMatrix(op.y, "rms_norm: y");
  CheckSameShape(op.x, op.y, "rms_norm: x and y differ in shape");
  Require(op.x.data != op.y.data || (op.x.dtype == op.y.dtype && op.x.stride == op.y.stride),
          "rms_norm: y lies where x does, in another layout");
  Require(op.num_heads >= 1 && op.x.size % op.num_heads == 0, "rms_norm: rows are not divided into num_heads parts");
  if (IsEmpty(op.x)) return;
  Require(op.weight != nullptr, "rms_norm: weight is null");
  const int64_t size = op.x.size / op.num_heads;
  Require(size <= INT32_MAX && op.x.num_rows <= INT32_MAX / op.num_heads, "rms_norm: x is too large");
  const NormArguments arguments = {.x = op.x.data,
                                   .x_stride = op.x.stride,
                                   .residual = nullptr,
                                   .residual_stride = 0,
                                   .weight = op.weight,
                                   .epsilon = op.epsilon,
                                   .y = op.y.data,
                                   .y_stride = op.y.stride,
                                   .num_parts = static_cast<uint32_t>(op.x.num_rows * op.num_heads),
                                   .num_heads = static_cast<uint32_t>(op.num_heads),
                                   .size = static_cast<int32_t>(size)};
  const bool vectors = size % kVectorSize == 0 && HasAlignedRows(op.x) && HasAlignedRows(op.y) && IsAligned(op.weight);
  DispatchFloat(op.x.dtype, [&]<typename TX>() {
    DispatchFloat(op.y.dtype, [&]<typename TY>() {
      constexpr bool kOneType = std::is_same_v<TX, TY> || std::is_same_v<TX, float> || std::is_same_v<TY, float>;
      if constexpr (kOneType) {
        LaunchNorm<TX, TY, false>(stream, arguments, vectors);
      } else {
        Fail(kHeddleCudaInvalid, "rms_norm: x and y are of different 16-bit types");
      }
    });
  });
}

void AddRmsNorm(HeddleCudaStream& stream, const HeddleCudaAddRmsNorm& op) {
  CheckMatrix(op.x, "add_rms_norm: x");
  CheckMatrix(op.residual, "add_rms_norm: residual");
  CheckMatrix(op.y, "add_rms_norm: y");
  CheckSameShape(op.x, op.residual, "add_rms_norm: x and residual differ in shape");
  CheckSameShape(op.x, op.y, "add_rms_norm: x and y differ in shape");
  Require(op.x.dtype == op.y.dtype, "add_rms_norm: x and y differ in dtype");
  Require(op.residual.dtype == kHeddleCudaFloat32, "add_rms_norm: residual is not float32");
  if (IsEmpty(op.x)) return;
  Require(op.weight != nullptr, "add_rms_norm: weight is null");
  Require(op.x.size <= INT32_MAX && op.x.num_rows <= INT32_MAX, "add_rms_norm: x is too large");
  const NormArguments arguments = {.x = op.x.data,
                                   .x_stride = op.x.stride,
                                   .residual = static_cast<float*>(op.residual.data),
                                   .residual_stride = op.residual.stride,
                                   .weight = op.weight,
                                   .epsilon = op.epsilon,
                                   .y = op.y.data,
                                   .y_stride = op.y.stride,
                                   .num_parts = static_cast<uint32_t>(op.x.num_rows),
                                   .num_heads = 1,
                                   .size = static_cast<int32_t>(op.x.size)};
  const bool vectors = op.x.size % kVectorSize == 0 && HasAlignedRows(op.x) && HasAlignedRows(op.residual) &&
                       HasAlignedRows(op.y) && IsAligned(op.weight);
  DispatchFloat(op.x.dtype, [&]<typename T>() { LaunchNorm<T, T, true>(stream, arguments, vectors); });
}

}  // namespace heddle::cuda
