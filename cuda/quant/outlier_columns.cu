#include "quant/outlier_columns.h"

#include <cstring>

#include "common/launch.h"
#include "common/mma.cuh"
#include "common/numeric.cuh"
#include "common/rounding.h"

namespace heddle::cuda {
namespace {

// 4 elements, loaded and stored at once.
template <typename T>
struct alignas(4 * sizeof(T)) Quad {
  T values[4];
};

constexpr int kColumnsOfWord = 32;
constexpr int kLanesOfWord = kColumnsOfWord / 4;
constexpr int kRowsAtOnce = 64;

struct FindArguments {
  const void* x;
  __half* rounded;
  uint32_t* columns;
  int64_t stride;
  int64_t num_rows;
  int64_t size;
  float threshold;
};

// A word of columns a block, all rows.
template <typename T>
__global__ void __launch_bounds__(kLanesOfWord* kRowsAtOnce) FindOutlierColumnsKernel(const FindArguments op) {
  __shared__ uint32_t word;
  AllowNext();
  if (threadIdx.x == 0) word = 0;
  __syncthreads();
  WaitForPrevious();

  const int lane = threadIdx.x % kLanesOfWord;
  const int64_t column = int64_t{blockIdx.x} * kColumnsOfWord + lane * 4;
  uint32_t found = 0;
  if (column < op.size) {
#pragma unroll 8
    for (int64_t row = threadIdx.x / kLanesOfWord; row < op.num_rows; row += kRowsAtOnce) {
      const auto quad = *reinterpret_cast<const Quad<T>*>(static_cast<const T*>(op.x) + row * op.stride + column);
      Quad<__half> rounded;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        rounded.values[i] = FromFloat<__half>(ToFloat(quad.values[i]));
        if (!(fabsf(ToFloat(rounded.values[i])) < op.threshold)) found |= 1u << i;
      }
      *reinterpret_cast<Quad<__half>*>(op.rounded + row * op.size + column) = rounded;
    }
  }
  if (found != 0) atomicOr(&word, found << lane * 4);
  __syncthreads();
  if (threadIdx.x == 0) op.columns[blockIdx.x] = word;
}

constexpr int kClearThreads = 128;

// A row a block.
__global__ void __launch_bounds__(kClearThreads)
    ClearOutlierColumnsKernel(int8_t* q, int64_t size, const uint32_t* columns, float* largest) {
  AllowNext();
  WaitForPrevious();
  int8_t* const row = q + blockIdx.x * size;
  for (int64_t index = threadIdx.x; index < CeilDiv(size, kColumnsOfWord); index += kClearThreads) {
    for (uint32_t word = columns[index]; word != 0; word &= word - 1) row[index * kColumnsOfWord + __ffs(word) - 1] = 0;
  }
  if (threadIdx.x == 0) largest[blockIdx.x] *= 127.0f;
}

constexpr int kAddWarps = 2;
constexpr int kOutputsOfWarp = 64;
constexpr int kOutputTiles = kOutputsOfWarp / 8;
constexpr int kColumnsOfTile = 16;

struct AddArguments {
  const void* x;
  const int8_t* values;
  const float* scales;
  const uint32_t* columns;
  const __half* sums;
  const float* bias;  // may be null
  void* y;
  int64_t x_stride;
  int64_t values_stride;
  int64_t y_stride;
  int num_words;
  int num_rows;
  int num_outputs;
};

// The products of a warp's rows, 16 a tile, and outputs. Of the columns of a tile of outputs the neighbours 2 q and
// 2 q + 1 are 16 q + 2 tile and the next: so a thread has 16 neighbours of a row in all tiles together.
template <int kRowTiles>
using ColumnSums = float[kRowTiles][kOutputTiles][4];

template <typename T>
__device__ __forceinline__ uint32_t PairOf(int8_t low, int8_t high) {
  const T pair[2] = {FromFloat<T>(low), FromFloat<T>(high)};
  uint32_t bits;
  memcpy(&bits, pair, sizeof(bits));
  return bits;
}

// Adds the products of `count` columns, 16 or fewer.
template <typename T, int kRowTiles>
__device__ __forceinline__ void AddColumns(const AddArguments& op, const int* columns, int count, int first_row,
                                           int first_output, ColumnSums<kRowTiles>& sums) {
  const int group = threadIdx.x % 32 / 4;
  const int first = threadIdx.x % 4 * 2;
  const int mine[4] = {first, first + 1, first + 8, first + 9};
  int column[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) column[i] = mine[i] < count ? columns[mine[i]] : 0;

  uint32_t x[kRowTiles][4];
#pragma unroll
  for (int i = 0; i < 4 * kRowTiles; ++i) {
    const int row = first_row + i / 4 * 16 + i % 2 * 8 + group;
    const auto element = [&](int j) -> uint32_t {
      if (row >= op.num_rows || mine[j] >= count) return 0;
      return static_cast<const uint16_t*>(op.x)[row * op.x_stride + column[j]];
    };
    const int low = i % 4 / 2 * 2;
    x[i / 4][i % 4] = element(low) | element(low + 1) << 16;
  }
#pragma unroll
  for (int tile = 0; tile < kOutputTiles; ++tile) {
    const int output = min(first_output + group / 2 * 16 + tile * 2 + group % 2, op.num_outputs - 1);
    const int8_t* const values = op.values + output * op.values_stride;
    const uint32_t b0 = PairOf<T>(values[column[0]], values[column[1]]);
    const uint32_t b1 = PairOf<T>(values[column[2]], values[column[3]]);
#pragma unroll
    for (int rows = 0; rows < kRowTiles; ++rows) MultiplyAdd16x8x16<T>(sums[rows][tile], x[rows], b0, b1);
  }
}

// Columns of several words make a tile: `shared` is the warp's, for what 16 leave of 32 more.
template <typename T, int kRowTiles>
__device__ __forceinline__ void AddAllColumns(const AddArguments& op, int* shared, int first_row, int first_output,
                                              ColumnSums<kRowTiles>& sums) {
  const int lane = threadIdx.x % 32;
  int count = 0;
  for (int first = 0; first < op.num_words; first += 32) {
    const uint32_t words = first + lane < op.num_words ? op.columns[first + lane] : 0;
    for (uint32_t lanes = __ballot_sync(0xffffffffu, words != 0); lanes != 0; lanes &= lanes - 1) {
      const int source = __ffs(lanes) - 1;
      const uint32_t word = __shfl_sync(0xffffffffu, words, source);
      if (word >> lane & 1) {
        shared[count + __popc(word & ((1u << lane) - 1))] = (first + source) * kColumnsOfWord + lane;
      }
      count += __popc(word);
      __syncwarp();
      int done = 0;
      for (; count - done >= kColumnsOfTile; done += kColumnsOfTile) {
        AddColumns<T, kRowTiles>(op, shared + done, kColumnsOfTile, first_row, first_output, sums);
      }
      if (done == 0) continue;
      count -= done;
      const int rest = lane < count ? shared[done + lane] : 0;
      __syncwarp();
      shared[lane] = rest;
      __syncwarp();
    }
  }
  if (count > 0) AddColumns<T, kRowTiles>(op, shared, count, first_row, first_output, sums);
}

template <typename T, typename Y, int kRowTiles>
__global__ void __launch_bounds__(kAddWarps * 32) AddOutlierColumnsKernel(const AddArguments op) {
  __shared__ int shared[kAddWarps][kColumnsOfTile + 32];
  AllowNext();
  WaitForPrevious();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int first_output = (static_cast<int>(blockIdx.x) * kAddWarps + warp) * kOutputsOfWarp;
  const int first_row = static_cast<int>(blockIdx.y) * kRowTiles * 16;
  if (first_output >= op.num_outputs) return;
  ColumnSums<kRowTiles> sums = {};
  AddAllColumns<T, kRowTiles>(op, shared[warp], first_row, first_output, sums);
#pragma unroll
  for (int quad = 0; quad < 4; ++quad) {
    const int output = first_output + lane % 4 * 16 + quad * 4;
    if (output >= op.num_outputs) break;
    float scales[4];
    float bias[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scales[i] = op.scales[output + i];
      bias[i] = op.bias == nullptr ? 0.0f : op.bias[output + i];
    }
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int64_t row = first_row + i * 8 + lane / 4;
      if (row >= op.num_rows) break;
      const auto base = *reinterpret_cast<const Quad<__half>*>(op.sums + row * op.num_outputs + output);
      Quad<Y> y;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float sum = sums[i / 2][quad * 2 + j / 2][i % 2 * 2 + j % 2];
        y.values[j] = FromFloat<Y>(fmaf(sum, scales[j], ToFloat(base.values[j])) + bias[j]);
      }
      *reinterpret_cast<Quad<Y>*>(static_cast<Y*>(op.y) + row * op.y_stride + output) = y;
    }
  }
}

template <typename T, int kRowTiles>
auto AddKernelFor(HeddleCudaDType y) {
  return y == kHeddleCudaFloat32 ? AddOutlierColumnsKernel<T, float, kRowTiles>
                                 : AddOutlierColumnsKernel<T, T, kRowTiles>;
}

template <int kRowTiles>
void LaunchAdd(const HeddleCudaStream& stream, HeddleCudaDType x, HeddleCudaDType y, const AddArguments& op) {
  const auto kernel =
      x == kHeddleCudaFloat16 ? AddKernelFor<__half, kRowTiles>(y) : AddKernelFor<__nv_bfloat16, kRowTiles>(y);
  const dim3 grid(static_cast<unsigned>(CeilDiv(op.num_outputs, kAddWarps * kOutputsOfWarp)),
                  static_cast<unsigned>(CeilDiv(op.num_rows, kRowTiles * 16)));
  Launch(stream, kernel, grid, dim3(kAddWarps * 32), 0, op);
}

}  // namespace

void FindOutlierColumns(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, float threshold, __half* rounded,
                        uint32_t* columns) {
  const FindArguments op = {x.data, rounded, columns, x.stride, x.num_rows, x.size, threshold};
  const auto kernel =
      x.dtype == kHeddleCudaFloat16 ? FindOutlierColumnsKernel<__half> : FindOutlierColumnsKernel<__nv_bfloat16>;
  Launch(stream, kernel, dim3(static_cast<unsigned>(CeilDiv(x.size, kColumnsOfWord))), dim3(kLanesOfWord * kRowsAtOnce),
         0, op);
}

void ClearOutlierColumns(const HeddleCudaStream& stream, const HeddleCudaMatrix& q, const uint32_t* columns,
                         float* largest) {
  Launch(stream, ClearOutlierColumnsKernel, dim3(static_cast<unsigned>(q.num_rows)), dim3(kClearThreads), 0,
         static_cast<int8_t*>(q.data), q.size, columns, largest);
}

void AddOutlierColumns(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight,
                       const uint32_t* columns, const __half* sums, const float* bias, const HeddleCudaMatrix& y) {
  const AddArguments op = {.x = x.data,
                           .values = static_cast<const int8_t*>(weight.values.data),
                           .scales = weight.scales,
                           .columns = columns,
                           .sums = sums,
                           .bias = bias,
                           .y = y.data,
                           .x_stride = x.stride,
                           .values_stride = weight.values.stride,
                           .y_stride = y.stride,
                           .num_words = static_cast<int>(CeilDiv(x.size, kColumnsOfWord)),
                           .num_rows = static_cast<int>(y.num_rows),
                           .num_outputs = static_cast<int>(y.size)};
  y.num_rows <= 16 ? LaunchAdd<1>(stream, x.dtype, y.dtype, op) : LaunchAdd<2>(stream, x.dtype, y.dtype, op);
}

}  // namespace heddle::cuda
