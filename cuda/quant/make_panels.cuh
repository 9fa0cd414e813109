// Outliers of x become panels: which columns of a group's rows have any, then these columns. Between the two, x lies in
// shared memory, zero where it is no outlier.
#pragma once

#include "quant/quantize_rows.cuh"

namespace heddle::cuda {

// The most columns of a group that a block takes.
inline constexpr int kMaxColumnsOfBlock = kQuantizeThreads * kHeldPacks * 8 / 16;

// Where those of a group's step begin.
__device__ __forceinline__ uint8_t* PanelsOf(const RowsToInt8& op, int group, int step) {
  return op.panels + PanelOffset(group, op.num_steps, step, op.columns_of_step, op.rows_of_group);
}

// Of these: a step, or as many as a block's threads hold at once.
constexpr int ColumnsOfBlock(int rows_of_group, int columns_of_step) {
  const int columns = kMaxColumnsOfBlock * 16 / rows_of_group;
  return columns < columns_of_step ? columns_of_step : columns;
}
// Between rows in shared memory, so that eight rows' elements of a column lie in different banks.
constexpr int StripRowBytes(int columns_of_block) { return columns_of_block * 2 + 16; }

// By all threads of a warp. From words with a bit for each of a step's columns: how many have outliers, and which, to
// `columns` too, from there on zeros up to a whole panel.
__device__ __forceinline__ int ListColumns(const RowsToInt8& op, int group, int step, const uint32_t* words,
                                           uint8_t* columns) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint8_t* const lists = PanelsOf(op, group, step) + PanelValueBytes(op.rows_of_group);
  const auto list = [&](int index, int column) {
    lists[index / kPanelColumns * PanelBytes(op.rows_of_group) + PlaceOfColumn(index % kPanelColumns)] =
        static_cast<uint8_t>(column);
    columns[index] = static_cast<uint8_t>(column);
  };
  int count = 0;
#pragma unroll 4
  for (int first = 0; first < op.columns_of_step; first += 32) {
    const uint32_t word = words[first / 32];
    if ((word >> lane & 1) != 0) list(count + __popc(word & ((1u << lane) - 1)), first + lane);
    count += __popc(word);
  }
  const int num_panels = (count + kPanelColumns - 1) / kPanelColumns;
  if (count + lane < num_panels * kPanelColumns) list(count + lane, 0);
  if (lane == 0) op.num_panels[group * PanelCountStride(op.num_steps) + step] = static_cast<uint8_t>(num_panels);
  return count;
}

// Makes the panels of `columns_of_block` columns of a group. By all threads of a block, whose `strip` has room for
// them.
template <typename T, bool kWhole>
__device__ __forceinline__ void MakePanels(const RowsToInt8& op, int group, int block_of_row, uint8_t* strip) {
  __shared__ uint32_t words[kMaxColumnsOfBlock / 32];  // a bit a column
  __shared__ uint8_t columns[kMaxColumnsOfBlock];
  __shared__ int counts[kQuantizeThreads / 32];
  const int thread = static_cast<int>(threadIdx.x);
  const int row_bytes = StripRowBytes(op.columns_of_block);
  const int threads_of_row = op.columns_of_block / 8;
  const int first_column = thread % threads_of_row * 8;
  const int num_columns = op.size - block_of_row * op.columns_of_block;
  const int num_rows = first_column < num_columns ? op.num_rows - group * op.rows_of_group : 0;
  const T* const x = static_cast<const T*>(op.x) + int64_t{group} * op.rows_of_group * op.x_stride +
                     block_of_row * op.columns_of_block;
  const int rows_at_once = kQuantizeThreads / threads_of_row;
  const OutlierTest<T> test(op.threshold);

  if (thread < kMaxColumnsOfBlock / 32) words[thread] = 0;
  uint4 any = {0, 0, 0, 0};
#pragma unroll 1
  for (int first = thread / threads_of_row; first < op.rows_of_group; first += kHeldPacks * rows_at_once) {
    uint4 held[kHeldPacks];
#pragma unroll
    for (int i = 0; i < kHeldPacks; ++i) {
      const int row = first + i * rows_at_once;
      held[i] = uint4{};
      if (row < min(num_rows, op.rows_of_group)) {
        held[i] = LoadWords<kWhole>(x + row * op.x_stride, first_column, num_columns);
      }
    }
#pragma unroll
    for (int i = 0; i < kHeldPacks; ++i) {
      const int row = first + i * rows_at_once;
      const uint4 outliers = test.Only(held[i]);
      any = {any.x | outliers.x, any.y | outliers.y, any.z | outliers.z, any.w | outliers.w};
      if (row < op.rows_of_group) *reinterpret_cast<uint4*>(strip + row * row_bytes + first_column * 2) = outliers;
    }
  }
  __syncthreads();
  const auto both = [](uint32_t pair) { return ((pair & 0xffff) != 0 ? 1u : 0) | (pair > 0xffff ? 2u : 0); };
  const uint32_t mine = both(any.x) | both(any.y) << 2 | both(any.z) << 4 | both(any.w) << 6;
  if (mine != 0) atomicOr(&words[first_column / 32], mine << first_column % 32);
  __syncthreads();

  // From here on an equal number of threads has each step.
  const int threads_of_step = kQuantizeThreads * op.columns_of_step / op.columns_of_block;
  const int step_of_block = thread / threads_of_step;
  const int at = thread % threads_of_step;
  const int first = step_of_block * op.columns_of_step;
  const int step = block_of_row * (op.columns_of_block / op.columns_of_step) + step_of_block;
  const bool has_step = first < num_columns;
  if (has_step && at < 32) counts[step_of_block] = ListColumns(op, group, step, words + first / 32, columns + first);
  __syncthreads();
  if (!has_step) return;

  const int count = counts[step_of_block];
  const int log_rows = 31 - __clz(op.rows_of_group);
  const int num_packs = (count + kPanelColumns - 1) / kPanelColumns * 2 << log_rows;
#pragma unroll 1
  for (int i = at; i < num_packs; i += threads_of_step) {
    const int half = i >> log_rows;
    const uint8_t* const row = strip + (i & (op.rows_of_group - 1)) * row_bytes + first * 2;
    uint32_t pairs[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      pairs[j] = 0;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int index = half * 8 + j * 2 + k;
        const uint32_t value = *reinterpret_cast<const uint16_t*>(row + columns[first + index] * 2);
        if (index < count) pairs[j] |= value << 16 * k;
      }
    }
    uint8_t* const panel = PanelsOf(op, group, step) + half / 2 * PanelBytes(op.rows_of_group);
    *reinterpret_cast<uint4*>(panel + (i & (2 * op.rows_of_group - 1)) * 16) = {pairs[0], pairs[1], pairs[2], pairs[3]};
  }
}

}  // namespace heddle::cuda
