// The first kernel of `sample`: one pass over the logits.
#include "common/launch.h"
#include "kernels/sampling_processor.cuh"

namespace heddle::cuda::sampling {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr float kLog2E = 1.44269504088896341f;

__device__ __forceinline__ float BlockMax(const float (&x)[kPerLane]) {
  float max = x[0];
#pragma unroll
  for (int j = 1; j < kPerLane; ++j) max = fmaxf(max, x[j]);
  return WarpMax(max);
}

// Sum of 2^((x - max) * factor). `max` is the largest of the block, NaNs apart.
__device__ __forceinline__ float SumOfPowers(const float (&x)[kPerLane], float max, float factor) {
  const float base = max == -kInfinity ? 0.0f : max;
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) sum += exp2f((x[j] - base) * factor);
  return WarpSum(sum);
}

// The lowest token of the block whose logit is `max`.
__device__ __forceinline__ int LowestWith(float max, const float (&x)[kPerLane], int block, int lane) {
  unsigned token = INT32_MAX;  // stands where all are NaN
#pragma unroll
  for (int j = kPerLane - 1; j >= 0; --j) {
    if (x[j] == max) token = static_cast<unsigned>(TokenOf(block, lane, j));
  }
  return static_cast<int>(__reduce_min_sync(kAllLanes, token));
}

// Statistics of blocks [begin, end) of a row, a warp a block. process(block, lane, x) turns logits into processed ones.
template <bool kProcess, typename Process>
__device__ void ReadSlice(const RowView& view, float temperature, int begin, int end, BlockStatistics* statistics,
                          int32_t* best_ids, const Process& process) {
  const int lane = threadIdx.x % 32;
  // Not infinite, so that it leaves a difference of zero alone.
  const float factor = temperature > 0.0f ? fminf(kLog2E / temperature, FLT_MAX) : 0.0f;
#pragma unroll 1
  for (int block = begin + static_cast<int>(threadIdx.x) / 32; block < end; block += kWarps) {
    float x[kPerLane];
    LoadBlock(view.logits, view.vocab_size, block, lane, x);
    BlockStatistics result;
    result.raw_max = result.max = BlockMax(x);
    result.raw_sum = result.sum = SumOfPowers(x, result.raw_max, kLog2E);
    if constexpr (kProcess) {
      process(block, lane, x);
      result.max = BlockMax(x);
    }
    if (temperature > 0.0f && (kProcess || temperature != 1.0f)) result.sum = SumOfPowers(x, result.max, factor);
    const int best_id = LowestWith(result.max, x, block, lane);
    if (lane == 0) {
      statistics[block] = result;
      best_ids[block] = best_id;
    }
  }
}

template <bool kProcess>
__global__ void __launch_bounds__(kThreads) StatisticsKernel(Step step) {
  extern __shared__ __align__(16) uint32_t table[];
  AllowNext();
  WaitForPrevious();
  const HeddleCudaSampleRow& row = step.op.rows[blockIdx.y];
  const RowView view{LogitsOfRow(step, blockIdx.y), static_cast<int>(step.op.logits.size), nullptr, nullptr};
  const float temperature = row.given_token >= 0 ? 0.0f : row.temperature;
  const int begin = static_cast<int>(blockIdx.x) * step.blocks_per_slice;
  const int end = min(begin + step.blocks_per_slice, step.num_blocks);
  const int64_t first = int64_t{blockIdx.y} * step.num_blocks;
  BlockStatistics* statistics = step.scratch.statistics + first;
  int32_t* best_ids = step.scratch.best_ids + first;
  if constexpr (kProcess) {
    if (IsProcessed(step, row)) {
      float* processed = step.scratch.processed + first * kBlockSize;
      uint8_t* changed = step.scratch.changed + first * 32;
      const Processor processor(step, row, view, processed, begin, end, table);
      ReadSlice<true>(view, temperature, begin, end, statistics, best_ids,
                      [&](int block, int lane, float(&x)[kPerLane]) {
                        processor.Apply(view.logits, block, lane, processed, changed, x);
                      });
      return;
    }
  }
  ReadSlice<false>(view, temperature, begin, end, statistics, best_ids, [](int, int, float(&)[kPerLane]) {});
}

}  // namespace

void LaunchStatistics(HeddleCudaStream& stream, const Step& step) {
  const dim3 grid(static_cast<unsigned>((step.num_blocks + step.blocks_per_slice - 1) / step.blocks_per_slice),
                  static_cast<unsigned>(step.op.logits.num_rows));
  if (step.op.process_logits == 0) return Launch(stream, StatisticsKernel<false>, grid, kThreads, 0, step);
  const size_t table_bytes = static_cast<size_t>(step.blocks_per_slice) * kBlockSize * sizeof(uint32_t);
  Launch(stream, StatisticsKernel<true>, grid, kThreads, table_bytes, step);
}

}  // namespace heddle::cuda::sampling
