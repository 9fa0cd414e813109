// The third kernel of `sample`: a thread block a row, ranks and best tokens of the model's own distribution.
#include "common/launch.h"
#include "kernels/sampling_select.cuh"

namespace heddle::cuda::sampling {
namespace {

// Narrows the candidates to values from `logit` on.
__device__ int RankOf(float logit, Shared& shared) {
  Change(shared, [&](Candidates& candidates) { candidates.min_value = logit; });
  FindBlocks(shared, shared.scan);
  const Candidates candidates = shared.candidates;
  int count = 0;
  ForEachCandidate(shared, candidates, {0, candidates.num_blocks}, kThreads,
                   [&](float value, int) { count += value > logit; });
  return 1 + SumOverThreads(count, shared.partial);
}

// REQUIRES: 1 <= k <= the vocabulary and HEDDLE_CUDA_MAX_LOGPROBS.
__device__ void ListBest(int k, float log_sum, Shared& shared, int32_t* ids, float* logprobs) {
  Change(shared, [](Candidates& candidates) { candidates.min_value = -kInfinity; });
  BoundByMaxima(shared, k);
  Gather(shared);
  const uint64_t last = Select(shared, Order::kValueThenId, Target::Count(k), 0);
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  const Candidates candidates = shared.candidates;
  ForEachCandidate(shared, candidates, {0, candidates.num_blocks}, kThreads, [&](float value, int id) {
    const uint64_t key = candidates.ValueKey(value, id);
    if (key >= last) shared.best[atomicAdd(&shared.count, 1)] = key;
  });
  __syncthreads();
  const int i = threadIdx.x;
  if (i >= k) return;
  const uint64_t key = shared.best[i];
  int place = 0;
  for (int other = 0; other < k; ++other) place += shared.best[other] > key;
  ids[place] = candidates.IdOfKey(key);
  logprobs[place] = FloatOfOrder(static_cast<uint32_t>(key >> candidates.id_bits)) - log_sum;
}

__global__ void __launch_bounds__(kThreads, 2) LogprobsKernel(Step step) {
  extern __shared__ __align__(16) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  AllowNext();
  WaitForPrevious();
  const int wanted = step.op.rows[blockIdx.x].num_logprobs;
  const HeddleCudaSampledToken sampled = step.op.sampled[blockIdx.x];
  if (wanted < 0 || sampled.failure != kHeddleCudaSampled) return;
  const float* logits = LogitsOfRow(step, blockIdx.x);
  const int vocab_size = static_cast<int>(step.op.logits.size);
  const RowStatistics statistics = step.scratch.rows[blockIdx.x];
  Change(shared, [&](Candidates& candidates) {
    candidates = {.view = {logits, vocab_size, nullptr, nullptr},
                  .statistics = step.scratch.statistics + int64_t{blockIdx.x} * step.num_blocks,
                  .num_blocks = step.num_blocks,
                  .id_bits = step.id_bits,
                  .raw = true,
                  .max = 0.0f,
                  .temperature = 1.0f,
                  .max_value = statistics.raw_max,
                  .fixed_point = FixedPoint(step.id_bits),
                  .min_value = -kInfinity,
                  .min_weight_key = 0,
                  .list_size = -1,
                  .num_blocks_left = 0};
  });
  const int rank = RankOf(logits[sampled.token_id], shared);
  if (threadIdx.x == 0) step.op.sampled[blockIdx.x].rank = rank;
  const int k = min(min(wanted, step.op.max_logprobs), vocab_size);
  const int64_t first = int64_t{blockIdx.x} * step.op.max_logprobs;
  if (k > 0) ListBest(k, statistics.log_sum, shared, step.op.best_ids + first, step.op.best_logprobs + first);
}

}  // namespace

void LaunchLogprobs(HeddleCudaStream& stream, const Step& step) {
  AllowShared(LogprobsKernel, sizeof(Shared));
  Launch(stream, LogprobsKernel, static_cast<unsigned>(step.op.logits.num_rows), kThreads, sizeof(Shared), step);
}

}  // namespace heddle::cuda::sampling
