// The second kernel of `sample`: a thread block a row, from the statistics of its blocks to a token.
#include "common/launch.h"
#include "kernels/sampling_select.cuh"

namespace heddle::cuda::sampling {
namespace {

constexpr int kNoToken = -1;
constexpr float kLowestValue = -88.0f;  // no weight is positive below it

// Sets out with all tokens of the row. Returns the largest logit of the model.
__device__ float Begin(const Step& step, const HeddleCudaSampleRow& row, Shared& shared) {
  const int64_t first = int64_t{blockIdx.x} * step.num_blocks;
  const BlockStatistics* statistics = step.scratch.statistics + first;
  float raw_max = -kInfinity;
  float max = -kInfinity;
#pragma unroll 1
  for (int block = threadIdx.x; block < step.num_blocks; block += kThreads) {
    raw_max = fmaxf(raw_max, statistics[block].raw_max);
    max = fmaxf(max, statistics[block].max);
  }
  raw_max = MaxOverThreads(raw_max, shared.partial);
  max = MaxOverThreads(max, shared.partial);

  RowView view{LogitsOfRow(step, blockIdx.x), static_cast<int>(step.op.logits.size), nullptr, nullptr};
  if (IsProcessed(step, row)) {
    view.changed = step.scratch.changed + first * 32;
    view.processed = step.scratch.processed + first * kBlockSize;
  }
  Change(shared, [&](Candidates& candidates) {
    candidates = {.view = view,
                  .statistics = statistics,
                  .num_blocks = step.num_blocks,
                  .id_bits = step.id_bits,
                  .raw = false,
                  .max = max,
                  .temperature = row.temperature,
                  .max_value = 0.0f,
                  .fixed_point = FixedPoint(step.id_bits),
                  .min_value = -kInfinity,
                  .min_weight_key = 0,
                  .list_size = -1,
                  .num_blocks_left = 0};
    shared.best_ids = step.scratch.best_ids + first;
    shared.random = UniformForToken(row);
  });
  return raw_max;
}

// log(sum(exp(logits))): see RowStatistics.
__device__ float LogSum(Shared& shared, float raw_max) {
  const float base = raw_max == -kInfinity ? 0.0f : raw_max;
  double sum = 0;
#pragma unroll 1
  for (int block = threadIdx.x; block < shared.candidates.num_blocks; block += kThreads) {
    const BlockStatistics statistics = shared.candidates.statistics[block];
    sum += static_cast<double>(expf(statistics.raw_max - base)) * static_cast<double>(statistics.raw_sum);
  }
  return base + logf(static_cast<float>(SumOverThreads(sum, shared.partial)));
}

__device__ int Greedy(Shared& shared) {
  unsigned best = UINT32_MAX;
#pragma unroll 1
  for (int block = threadIdx.x; block < shared.candidates.num_blocks; block += kThreads) {
    if (shared.candidates.statistics[block].max != shared.candidates.max) continue;
    best = min(best, static_cast<unsigned>(block));
  }
  return shared.best_ids[MinOverThreads(best, shared.partial)];
}

// The sum of a block's weights, but for the last digits.
__device__ uint64_t WeightOfBlock(const Candidates& all, int block) {
  const float weight = WeightOf(all.MaxValueOf(block));
  return all.fixed_point(static_cast<double>(weight) * static_cast<double>(all.statistics[block].sum));
}

// Sum over the threads up to this one, and of all.
struct InclusiveSum {
  uint64_t sum;
  uint64_t total;
};
__device__ __noinline__ InclusiveSum SumUpTo(uint64_t x, uint64_t* partial) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  x = WarpInclusiveSum(x);
  __syncthreads();
  if (lane == 31) partial[warp] = x;
  __syncthreads();
  uint64_t total = 0;
#pragma unroll 1
  for (int i = 0; i < kWarps; ++i) {
    if (i < warp) x += partial[i];
    total += partial[i];
  }
  return {x, total};
}

// The token of a block at which the sum of weights reaches `target`, or the last of those that count if none does.
__device__ int DrawFromBlock(int block, uint64_t target, Shared& shared) {
  const Candidates& all = shared.candidates;
  const int token = block * kBlockSize + static_cast<int>(threadIdx.x);
  uint64_t own = 0;
  if (threadIdx.x < kBlockSize && token < all.view.vocab_size) {
    own = all.fixed_point(WeightOf(all.ValueOf(all.view.At(token))));
  }
  if (threadIdx.x == 0) shared.token = shared.best_ids[block];  // stands where each is too light to count
  const InclusiveSum sum = SumUpTo(own, shared.partial);
  target = min(target, sum.total);
  if (sum.sum - own < target && target <= sum.sum) shared.token = token;
  __syncthreads();
  return shared.token;
}

// A draw from all tokens: the block by the statistics, then the token by its logits.
__device__ int DrawFromAll(Shared& shared) {
  const Candidates& all = shared.candidates;
  const int blocks_per_thread = (all.num_blocks + kThreads - 1) / kThreads;
  const int begin = static_cast<int>(threadIdx.x) * blocks_per_thread;
  const int end = min(begin + blocks_per_thread, all.num_blocks);
  uint64_t own = 0;
#pragma unroll 1
  for (int block = begin; block < end; ++block) own += WeightOfBlock(all, block);
  const InclusiveSum sum = SumUpTo(own, shared.partial);
  const uint64_t target = Target::Draw(shared.random).At(sum.total);
  uint64_t reached = sum.sum;
  if (reached - own < target && target <= reached) {  // in one thread
    int block = end;
    do {
      reached -= WeightOfBlock(all, --block);
    } while (reached >= target);
    shared.count = block;
    shared.key = target - reached;
  }
  __syncthreads();
  return DrawFromBlock(shared.count, shared.key, shared);
}

struct Filters {
  bool top_k, top_p, min_p;

  __device__ Filters(const HeddleCudaSampleRow& row, int vocab_size)
      : top_k(row.top_k > 0 && row.top_k < vocab_size), top_p(row.top_p < 1.0f), min_p(row.min_p > 0.0f) {}
};

// A weight that the last token kept by top-p has at least, when nothing but top-p filters. `all_weights`: their sum, to
// within one part in 100,000.
__device__ float WeightKeptByTopP(double p, uint64_t all_weights, Shared& shared) {
  constexpr double kError = 1e-5;
  constexpr int kIgnoredBits = 16;  // of the weight: a bound need not be sharp
  const Target target{p * (1 + kError), all_weights, false};
  // The best tokens of all blocks reach the target no sooner than all tokens do.
  Change(shared, [](Candidates& candidates) { candidates.min_weight_key = candidates.WeightKey(0.0f, 0) + 1; });
  ListMaxima(shared);
  const uint64_t key = Select(shared, Order::kWeightThenId, target, shared.candidates.id_bits + kIgnoredBits);
  if (target.part * __ull2double_rn(all_weights) <= __ull2double_rn(shared.sum)) {
    return shared.candidates.WeightOfKey(key);
  }
  // Tokens below the average share of what may be dropped weigh less than that together.
  const double dropped = fmax(0.0, 1 - p - kError) * __ull2double_rn(all_weights);
  const double all_tokens = shared.candidates.fixed_point.One() * shared.candidates.view.vocab_size;
  return static_cast<float>(dropped) / static_cast<float>(all_tokens);
}

__device__ uint64_t SumOfWeights(Shared& shared) {
  uint64_t sum = 0;
#pragma unroll 1
  for (int block = threadIdx.x; block < shared.candidates.num_blocks; block += kThreads) {
    sum += WeightOfBlock(shared.candidates, block);
  }
  return SumUpTo(sum, shared.partial).total;
}

__device__ void ApplyTopK(int k, Shared& shared) {
  if (shared.candidates.list_size >= 0 && shared.candidates.list_size <= k) return;
  const uint64_t key = Select(shared, Order::kValue, Target::Count(k), 0);
  Change(shared, [&](Candidates& candidates) { candidates.min_value = FloatOfOrder(static_cast<uint32_t>(key)); });
  if (shared.candidates.list_size < 0) FindBlocks(shared, shared.scan);
}

__device__ __noinline__ int DrawFiltered(const HeddleCudaSampleRow& row, Filters filters, Shared& shared) {
  float min_weight = filters.min_p ? fminf(row.min_p, 1.0f) : 0.0f;
  uint64_t all_weights = 0;  // 0: not all are left for top-p
  if (filters.top_k) {
    BoundByMaxima(shared, row.top_k);
  } else if (!filters.min_p) {
    all_weights = SumOfWeights(shared);
    min_weight = WeightKeptByTopP(row.top_p, all_weights, shared);
  }
  Change(shared, [&](Candidates& candidates) {
    const float min_value = fmaxf(kLowestValue, logf(min_weight) - kValueMargin);
    candidates.min_value = fmaxf(candidates.min_value, min_value);
    candidates.min_weight_key = static_cast<uint64_t>(max(__float_as_int(min_weight), 1)) << candidates.id_bits;
  });
  Gather(shared);

  if (filters.top_k) ApplyTopK(row.top_k, shared);
  if (filters.top_p) {
    const uint64_t key = Select(shared, Order::kWeightThenId, {row.top_p, all_weights, false}, 0);
    Change(shared, [&](Candidates& candidates) { candidates.min_weight_key = key; });
  }
  return shared.candidates.IdOfKey(Select(shared, Order::kId, Target::Draw(shared.random), 0));
}

// The token of a row whose logits are numbers, or kNoToken.
__device__ int Choose(const HeddleCudaSampleRow& row, Shared& shared) {
  const int vocab_size = shared.candidates.view.vocab_size;
  if (row.given_token >= 0) return row.given_token < vocab_size ? row.given_token : kNoToken;
  if (!isfinite(shared.candidates.max)) return kNoToken;
  if (row.temperature == 0.0f) return Greedy(shared);
  const Filters filters(row, vocab_size);
  if (filters.top_k || filters.top_p || filters.min_p) return DrawFiltered(row, filters, shared);
  return DrawFromAll(shared);
}

__global__ void __launch_bounds__(kThreads, 2) ChoiceKernel(Step step) {
  extern __shared__ __align__(16) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  AllowNext();
  WaitForPrevious();
  const HeddleCudaSampleRow& row = step.op.rows[blockIdx.x];
  const float raw_max = Begin(step, row, shared);
  const float log_sum = LogSum(shared, raw_max);
  if (threadIdx.x == 0) step.scratch.rows[blockIdx.x] = {raw_max, log_sum};
  const bool is_valid = isfinite(log_sum);
  const int token = is_valid ? Choose(row, shared) : kNoToken;
  if (threadIdx.x != 0) return;
  HeddleCudaSampledToken result{0, 0.0f, 0, is_valid ? kHeddleCudaNoTokenAllowed : kHeddleCudaInvalidLogits};
  if (token != kNoToken) {
    result = {token, LogitsOfRow(step, blockIdx.x)[token] - log_sum, 0, kHeddleCudaSampled};
    if (row.given_token < 0 && row.history_begin >= 0) step.op.history[row.history_begin + row.position] = token;
  }
  step.op.sampled[blockIdx.x] = result;
  step.op.token_ids[blockIdx.x] = result.token_id;
}

}  // namespace

void LaunchChoice(HeddleCudaStream& stream, const Step& step) {
  AllowShared(ChoiceKernel, sizeof(Shared));
  Launch(stream, ChoiceKernel, static_cast<unsigned>(step.op.logits.num_rows), kThreads, sizeof(Shared), step);
}

}  // namespace heddle::cuda::sampling
