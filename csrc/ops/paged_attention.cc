#include <algorithm>
#include <atomic>

#include "base/rounding.h"
#include "ops/cache_checks.h"
#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {
namespace {

using cpu::AttentionTask;

// Rows of a task: enough to reuse what it loads of keys and values, few enough to stay in the L1 cache beside them.
constexpr int kRowsPerTask = 64;

// First position that a query at `position` sees.
int64_t WindowBegin(int64_t position, int sliding_window) {
  return sliding_window > 0 ? std::max<int64_t>(0, position - sliding_window + 1) : 0;
}

void CheckSequence(const AttentionMetadata& metadata, const AttentionParams& params, const KVCacheView& cache,
                   size_t seq) {
  const int64_t num_tokens = metadata.query_start_loc[seq + 1] - metadata.query_start_loc[seq];
  const int64_t seq_len = metadata.seq_lens[seq];
  HEDDLE_CHECK(num_tokens >= 0 && num_tokens <= seq_len,
               std::to_string(num_tokens) + " tokens of a sequence of " + std::to_string(seq_len));
  const int64_t num_blocks = CeilDiv(seq_len, cache.block_size);
  HEDDLE_CHECK(num_blocks <= metadata.max_blocks_per_seq,
               std::to_string(num_blocks) + " blocks, table has " + std::to_string(metadata.max_blocks_per_seq));
  const int32_t* blocks = metadata.block_table.data() + seq * static_cast<size_t>(metadata.max_blocks_per_seq);
  // Blocks that slid out of every window may have been given away.
  for (int64_t i = WindowBegin(seq_len - num_tokens, params.sliding_window) / cache.block_size; i < num_blocks; ++i) {
    HEDDLE_CHECK(blocks[i] >= 0 && blocks[i] < cache.keys.dim(0),
                 "block " + std::to_string(blocks[i]) + " of " + std::to_string(cache.keys.dim(0)));
  }
}

void CheckArguments(const TensorView& q, const KVCacheView& cache, const AttentionMetadata& metadata,
                    const AttentionParams& params, const TensorView& out) {
  HEDDLE_CHECK(params.num_kv_heads > 0 && params.num_heads > 0 && params.num_heads % params.num_kv_heads == 0,
               std::to_string(params.num_heads) + " heads, " + std::to_string(params.num_kv_heads) + " KV heads");
  HEDDLE_CHECK(params.head_dim > 0 && params.head_dim % 2 == 0 && params.head_dim <= 512,
               "head_dim " + std::to_string(params.head_dim));
  HEDDLE_CHECK(cache.block_size > 0 && cache.block_size % 16 == 0, "block size " + std::to_string(cache.block_size));
  HEDDLE_CHECK(metadata.query_start_loc.size() == metadata.seq_lens.size() + 1 && metadata.query_start_loc[0] == 0,
               "query_start_loc must begin at 0 and have one more entry than seq_lens");
  HEDDLE_CHECK(
      metadata.block_table.size() >= metadata.seq_lens.size() * static_cast<size_t>(metadata.max_blocks_per_seq),
      "block_table has " + std::to_string(metadata.block_table.size()) + " entries");
  for (size_t seq = 0; seq < metadata.seq_lens.size(); ++seq) CheckSequence(metadata, params, cache, seq);
  const Shape shape{metadata.query_start_loc.back(), int64_t{params.num_heads} * params.head_dim};
  CheckView("PagedAttention: q", q, DType::kFloat32, shape);
  CheckView("PagedAttention: out", out, DType::kFloat32, shape);
}

int64_t CountTasks(const AttentionMetadata& metadata, int num_kv_heads, int tile) {
  int64_t num_tasks = 0;
  for (size_t seq = 0; seq < metadata.seq_lens.size(); ++seq) {
    const int64_t num_tokens = metadata.query_start_loc[seq + 1] - metadata.query_start_loc[seq];
    num_tasks += CeilDiv(num_tokens, tile) * num_kv_heads;
  }
  return num_tasks;
}

void FillTasks(const AttentionMetadata& metadata, int num_kv_heads, int tile, std::span<AttentionTask> tasks) {
  size_t next = 0;
  for (size_t seq = 0; seq < metadata.seq_lens.size(); ++seq) {
    const int begin = metadata.query_start_loc[seq];
    const int end = metadata.query_start_loc[seq + 1];
    const int first_position = metadata.seq_lens[seq] - (end - begin);
    const int32_t* blocks = metadata.block_table.data() + seq * static_cast<size_t>(metadata.max_blocks_per_seq);
    for (int token = begin; token < end; token += tile) {
      const int num_tokens = std::min(tile, end - token);
      for (int head = 0; head < num_kv_heads; ++head) {
        tasks[next++] = {token, num_tokens, first_position + token - begin, head, blocks};
      }
    }
  }
}

// Scores that a task computes for each query head.
int64_t Cost(const AttentionTask& task, int sliding_window) {
  return (task.position + task.num_tokens - WindowBegin(task.position, sliding_window)) * task.num_tokens;
}

void SortByCost(std::span<AttentionTask> tasks, int sliding_window) {
  std::sort(tasks.begin(), tasks.end(), [=](const AttentionTask& a, const AttentionTask& b) {
    const int64_t cost_a = Cost(a, sliding_window);
    const int64_t cost_b = Cost(b, sliding_window);
    if (cost_a != cost_b) return cost_a > cost_b;
    return a.first_token != b.first_token ? a.first_token < b.first_token : a.kv_head < b.kv_head;
  });
}

// Everything but the scratch memory.
cpu::AttentionArgs MakeArgs(const TensorView& q, const KVCacheView& cache, cpu::Storage storage,
                            const AttentionParams& params, const TensorView& out) {
  return {.q = q.Data<float>(),
          .q_stride = q.row_stride,
          .keys = cache.keys.data,
          .values = cache.values.data,
          .storage = storage,
          .key_scales = cache.key_scales.Data<float>(),
          .value_scales = cache.value_scales.Data<float>(),
          .num_heads = params.num_heads,
          .num_kv_heads = params.num_kv_heads,
          .head_dim = params.head_dim,
          .block_size = cache.block_size,
          .scale = params.scale,
          .soft_cap = params.soft_cap,
          .sliding_window = params.sliding_window,
          .out = out.Data<float>(),
          .out_stride = out.row_stride,
          .scratch = nullptr};
}

}  // namespace

void PagedAttention(Stream& stream, const TensorView& q, const KVCacheView& cache, const AttentionMetadata& metadata,
                    const AttentionParams& params, const TensorView& out) {
  const OpTimer timer(stream);
  if (stream.cuda() != nullptr) return cuda::PagedAttention(stream, q, cache, metadata, params, out);
  const cpu::Storage storage = CheckCache(cache, params.num_kv_heads, params.head_dim);
  CheckArguments(q, cache, metadata, params, out);
  const cpu::AttentionArgs args = MakeArgs(q, cache, storage, params, out);
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  const int group = params.num_heads / params.num_kv_heads;
  const int tile = std::clamp(kRowsPerTask / group, 1, cpu::kAttentionQueryTile);

  // Scratch: the floats of each thread, in whole cache lines, then the tasks.
  const size_t floats = kernels.attention_scratch_floats(params.num_heads, params.num_kv_heads, params.head_dim);
  const size_t thread_floats = (floats + 15) / 16 * 16;
  const size_t all_floats = thread_floats * static_cast<size_t>(stream.threads().num_threads());
  const auto num_tasks = static_cast<size_t>(CountTasks(metadata, params.num_kv_heads, tile));
  auto* scratch = static_cast<float*>(stream.Scratch(all_floats * sizeof(float) + num_tasks * sizeof(AttentionTask)));
  const std::span<AttentionTask> tasks(reinterpret_cast<AttentionTask*>(scratch + all_floats), num_tasks);
  FillTasks(metadata, params.num_kv_heads, tile, tasks);
  SortByCost(tasks, params.sliding_window);

  // Each thread takes the costliest task that is left, so that all end at about the same time.
  std::atomic<size_t> next_task{0};
  const auto work = [&](int thread) {
    cpu::AttentionArgs thread_args = args;
    thread_args.scratch = scratch + thread_floats * static_cast<size_t>(thread);
    for (size_t i; (i = next_task.fetch_add(1, std::memory_order_relaxed)) < num_tasks;) {
      kernels.attention(thread_args, tasks[i]);
    }
  };
  int64_t num_scores = 0;
  for (const AttentionTask& task : tasks) num_scores += Cost(task, params.sliding_window) * group;
  if (num_scores * params.head_dim < kMinParallelElements) {
    work(0);
  } else {
    stream.threads().RunShared(work);
  }
}

}  // namespace heddle::ops
