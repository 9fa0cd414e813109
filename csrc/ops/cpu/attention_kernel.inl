// Causal attention over the paged cache for one task: up to kAttentionQueryTile neighbouring tokens of a sequence and
// all query heads of one KV head.
//
// A row is one query head of one token. The context is walked in partitions of fixed absolute position, each one step
// of an online softmax. What a row computes depends on its own position alone: keys outside its window are blended
// out of scores and skipped in sums, never multiplied by zero, and a partition wholly outside leaves the row untouched.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace attention {

constexpr int kRowBlock = 4;  // rows that share each load of keys and values

// Sums kept side by side, enough to hide the latency of a multiply-add: eight registers either way.
#if defined(__AVX512F__)
constexpr int kSums = 8;
#else
constexpr int kSums = 4;
#endif

// How many vectors at a time that makes for each of `rows` rows.
constexpr int VectorsFor(int rows) { return kSums / rows < kChunks ? kSums / rows : kChunks; }

constexpr int PaddedHeadDim(int head_dim) { return (head_dim + 15) / 16 * 16; }

// What a row keeps between partitions, in whole cache lines: weighted values, sum and maximum.
constexpr int StateFloats(int head_dim) { return PaddedHeadDim(head_dim) + 16 + 16; }

// The keys of one partition that a row attends to, counted from the partition's first.
struct KeyRange {
  int begin;
  int end;
};

// One row of a task: its query, its window in the sequence and its softmax so far, relative to the largest score.
struct AttentionRow {
  const float* q;
  float* out;
  float* weighted;  // [PaddedHeadDim(head_dim)] sum of values, lanes in the order of the cache's loads
  float* lane_sum;  // [16] sum of exponentials, key i in lane i mod 16
  float* max;
  int begin;  // absolute positions of the keys it sees
  int end;
};

inline int Clip(int value) { return value < 0 ? 0 : value < kAttentionPartition ? value : kAttentionPartition; }

inline KeyRange RangeIn(const AttentionRow& row, int base) {
  const KeyRange range{Clip(row.begin - base), Clip(row.end - base)};
  return range.begin < range.end ? range : KeyRange{0, 0};
}

// Row `head` (of `group`) of token `token` of the task.
inline AttentionRow RowOf(const AttentionArgs& args, const AttentionTask& task, int group, int token, int head) {
  const int64_t padded = PaddedHeadDim(args.head_dim);
  const int64_t column = (int64_t{task.kv_head} * group + head) * args.head_dim;
  float* state = args.scratch + (int64_t{token} * group + head) * StateFloats(args.head_dim);
  const int position = task.position + token;
  const int window = args.sliding_window;
  return {args.q + (task.first_token + token) * args.q_stride + column,
          args.out + (task.first_token + token) * args.out_stride + column,
          state,
          state + padded,
          state + padded + 16,
          window > 0 && position >= window ? position - window + 1 : 0,
          position + 1};
}

// Steps through vectors of the cache, as many side by side as there are registers for. What a later phase will read is
// prefetched at the same pace: blocks are too short and too scattered for the hardware to foresee.
template <typename Cache, int kVectors>
struct Walk {
  const typename Cache::Element* vectors[kVectors];
  int64_t stride;
  const typename Cache::Element* ahead[kVectors];
  int64_t ahead_stride;
};

// sums[r][v] += sum over i in [begin, end), upwards, of weights[r][i] * walk.vectors[v][i * stride ..].
template <typename Cache, int kRows, int kVectors>
inline void MultiplyAdd(const float* const (&weights)[kRows], const Walk<Cache, kVectors>& walk, int64_t begin,
                        int64_t end, F32x16 (&sums)[kRows][kVectors]) {
  for (int64_t i = begin; i < end; ++i) {
    F32x16 vector[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      vector[v] = Cache::LoadVector(walk.vectors[v] + i * walk.stride);
      Prefetch(walk.ahead[v] + i * walk.ahead_stride);
    }
    for (int r = 0; r < kRows; ++r) {
      const F32x16 weight = Set1(weights[r][i]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Fma(weight, vector[v], sums[r][v]);
    }
  }
}

// scores[r][key] = q[r] . key for the keys of kVectors chunks from `chunk` on.
template <typename Cache, int kRows, int kVectors>
inline void ScoreChunks(const AttentionArgs& args, const AttentionRow* rows, const Partition<Cache>& partition,
                        int chunk, float (*scores)[kAttentionPartition]) {
  const float* q[kRows];
  Walk<Cache, kVectors> walk;
  F32x16 sums[kRows][kVectors];
  walk.stride = args.block_size;
  walk.ahead_stride = kChunk;
  for (int v = 0; v < kVectors; ++v) {
    walk.vectors[v] = partition.keys[chunk + v];
    walk.ahead[v] = partition.values[chunk + v];
  }
  for (int r = 0; r < kRows; ++r) {
    q[r] = rows[r].q;
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Zero();
  }
  MultiplyAdd<Cache, kRows, kVectors>(q, walk, 0, args.head_dim, sums);
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      const F32x16 score = Scaled<Cache>(Cache::Ordered(sums[r][v]), partition.key_scales, chunk + v);
      Store(scores[r] + (chunk + v) * kChunk, score);
    }
  }
}

// Makes what the row has so far relative to a new maximum.
inline void Rescale(const AttentionArgs& args, const AttentionRow& row, float new_max) {
  const F32x16 factor = Exp(Set1(*row.max - new_max));
  Store(row.lane_sum, Mul(Load(row.lane_sum), factor));
  for (int d = 0; d < PaddedHeadDim(args.head_dim); d += 16) {
    Store(row.weighted + d, Mul(Load(row.weighted + d), factor));
  }
  *row.max = new_max;
}

// One step of the online softmax: turns the row's raw scores into weights of the values as they are stored, in place,
// and adds their exponentials to its sum.
template <typename Cache>
inline void SoftmaxStep(const AttentionArgs& args, const AttentionRow& row, const Partition<Cache>& partition,
                        KeyRange range, float* scores) {
  const int begin = range.begin / kChunk;
  const int end = (range.end + kChunk - 1) / kChunk;
  const float infinity = __builtin_inff();
  F32x16 largest = Set1(-infinity);
  for (int c = begin; c < end; ++c) {
    F32x16 score = Mul(Load(scores + c * kChunk), Set1(args.scale));
    if (args.soft_cap > 0) score = Mul(Tanh(Div(score, Set1(args.soft_cap))), Set1(args.soft_cap));
    score = KeepLanes(score, range.begin - c * kChunk, range.end - c * kChunk, -infinity);
    Store(scores + c * kChunk, score);
    largest = Max(score, largest);
  }
  const float old_max = *row.max;
  const float partition_max = ReduceMax(largest);
  const float new_max = partition_max > old_max ? partition_max : old_max;
  if (new_max != old_max) Rescale(args, row, new_max);  // else by exactly one
  F32x16 sum = Load(row.lane_sum);
  for (int c = begin; c < end; ++c) {
    const F32x16 weight = Exp(Sub(Load(scores + c * kChunk), Set1(new_max)));
    Store(scores + c * kChunk, Scaled<Cache>(weight, partition.value_scales, c));
    sum = Add(sum, weight);
  }
  Store(row.lane_sum, sum);
}

// rows[r].weighted[d ..] += sum over the keys of `range`, upwards, of weights[r][key] * value[key][d ..], for kVectors
// vectors of head_dim.
template <typename Cache, int kRows, int kVectors>
inline void WeighColumns(const AttentionArgs& args, const AttentionRow* rows, const Partition<Cache>& partition,
                         KeyRange range, int d, const float (*weights)[kAttentionPartition]) {
  Walk<Cache, kVectors> walk;
  F32x16 sums[kRows][kVectors];
  walk.stride = args.head_dim;
  walk.ahead_stride = args.block_size;
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Load(rows[r].weighted + d + v * 16);
  }
  for (int chunk = range.begin / kChunk; chunk * kChunk < range.end; ++chunk) {
    const int first = chunk * kChunk;
    const float* row_weights[kRows];
    for (int v = 0; v < kVectors; ++v) {
      walk.vectors[v] = partition.values[chunk] + d + v * 16;
      walk.ahead[v] = partition.next_keys[chunk] + int64_t{d + v * 16} * args.block_size;
    }
    for (int r = 0; r < kRows; ++r) row_weights[r] = weights[r] + first;
    MultiplyAdd<Cache, kRows, kVectors>(row_weights, walk, range.begin > first ? range.begin - first : 0,
                                        range.end - first < kChunk ? range.end - first : kChunk, sums);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Store(rows[r].weighted + d + v * 16, sums[r][v]);
  }
}

// The columns that do not fill a vector: a full load could read past the end of the cache.
template <typename Cache>
inline void WeighTail(const AttentionArgs& args, const AttentionRow& row, const Partition<Cache>& partition,
                      KeyRange range, int d, const float* weights) {
  const size_t bytes = static_cast<size_t>(args.head_dim - d) * sizeof(typename Cache::Element);
  F32x16 sum = Load(row.weighted + d);
  for (int key = range.begin; key < range.end; ++key) {
    typename Cache::Element value[16] = {};
    std::memcpy(value, partition.values[key / kChunk] + int64_t{key % kChunk} * args.head_dim + d, bytes);
    sum = Fma(Set1(weights[key]), Cache::LoadVector(value), sum);
  }
  Store(row.weighted + d, sum);
}

// Adds the weighted values of the keys in `range` to each row.
template <typename Cache, int kRows>
inline void WeighValues(const AttentionArgs& args, const AttentionRow* rows, const Partition<Cache>& partition,
                        KeyRange range, const float (*weights)[kAttentionPartition]) {
  if (range.begin >= range.end) return;
  constexpr int kVectors = VectorsFor(kRows);
  int d = 0;
  for (; d + kVectors * 16 <= args.head_dim; d += kVectors * 16) {
    WeighColumns<Cache, kRows, kVectors>(args, rows, partition, range, d, weights);
  }
  for (; d + 16 <= args.head_dim; d += 16) {
    WeighColumns<Cache, kRows, 1>(args, rows, partition, range, d, weights);
  }
  if (d == args.head_dim) return;
  for (int r = 0; r < kRows; ++r) WeighTail<Cache>(args, rows[r], partition, range, d, weights[r]);
}

// One partition for kRows rows: scores, softmax, values.
template <typename Cache, int kRows>
void AttendPartition(const AttentionArgs& args, const AttentionRow* rows, const Partition<Cache>& partition, int base) {
  KeyRange ranges[kRows];
  KeyRange any{kAttentionPartition, 0};     // keys that some row sees
  KeyRange common{0, kAttentionPartition};  // keys that every row sees
  for (int r = 0; r < kRows; ++r) {
    ranges[r] = RangeIn(rows[r], base);
    common.begin = ranges[r].begin > common.begin ? ranges[r].begin : common.begin;
    common.end = ranges[r].end < common.end ? ranges[r].end : common.end;
    if (ranges[r].end == 0) continue;
    any.begin = ranges[r].begin < any.begin ? ranges[r].begin : any.begin;
    any.end = ranges[r].end > any.end ? ranges[r].end : any.end;
  }
  if (any.end == 0) return;

  float scores[kRows][kAttentionPartition];
  constexpr int kVectors = VectorsFor(kRows);
  const int chunk_end = (any.end + kChunk - 1) / kChunk;
  int chunk = any.begin / kChunk;
  for (; chunk + kVectors <= chunk_end; chunk += kVectors) {
    ScoreChunks<Cache, kRows, kVectors>(args, rows, partition, chunk, scores);
  }
  for (; chunk < chunk_end; ++chunk) ScoreChunks<Cache, kRows, 1>(args, rows, partition, chunk, scores);

  for (int r = 0; r < kRows; ++r) {
    if (ranges[r].end > 0) SoftmaxStep(args, rows[r], partition, ranges[r], scores[r]);
  }

  // Rows share the loads of the keys they have in common; before and after them each goes alone.
  if (common.begin >= common.end) common = {kAttentionPartition, kAttentionPartition};
  for (int r = 0; r < kRows; ++r) {
    const int end = ranges[r].end < common.begin ? ranges[r].end : common.begin;
    WeighValues<Cache, 1>(args, rows + r, partition, {ranges[r].begin, end}, scores + r);
  }
  WeighValues<Cache, kRows>(args, rows, partition, common, scores);
  for (int r = 0; r < kRows; ++r) {
    WeighValues<Cache, 1>(args, rows + r, partition, {common.end, ranges[r].end}, scores + r);
  }
}

template <typename Cache>
void AttendRows(const AttentionArgs& args, const AttentionRow* rows, int num_rows, const Partition<Cache>& partition,
                int base) {
  switch (num_rows) {
    case 1:
      return AttendPartition<Cache, 1>(args, rows, partition, base);
    case 2:
      return AttendPartition<Cache, 2>(args, rows, partition, base);
    case 3:
      return AttendPartition<Cache, 3>(args, rows, partition, base);
    default:
      return AttendPartition<Cache, kRowBlock>(args, rows, partition, base);
  }
}

inline void BeginRow(const AttentionArgs& args, const AttentionRow& row) {
  for (int d = 0; d < PaddedHeadDim(args.head_dim); d += 16) Store(row.weighted + d, Zero());
  Store(row.lane_sum, Zero());
  *row.max = -__builtin_inff();
}

template <typename Cache>
void FinishRow(const AttentionArgs& args, const AttentionRow& row) {
  const F32x16 sum = Set1(ReduceAdd(Load(row.lane_sum)));
  for (int d = 0; d < args.head_dim; d += 16) {
    const int count = args.head_dim - d < 16 ? args.head_dim - d : 16;
    StorePartial(row.out + d, Div(Cache::Ordered(Load(row.weighted + d)), sum), count);
  }
}

// Calls visit(rows, count) for all rows of the task in blocks of kRowBlock, the last perhaps smaller.
template <typename Visit>
inline void ForRowBlocks(const AttentionArgs& args, const AttentionTask& task, const Visit& visit) {
  const int group = args.num_heads / args.num_kv_heads;
  AttentionRow rows[kRowBlock];
  int count = 0;
  for (int token = 0; token < task.num_tokens; ++token) {
    for (int head = 0; head < group; ++head) {
      rows[count++] = RowOf(args, task, group, token, head);
      if (count < kRowBlock) continue;
      visit(rows, count);
      count = 0;
    }
  }
  if (count > 0) visit(rows, count);
}

template <typename Cache>
void AttentionOver(const AttentionArgs& args, const AttentionTask& task) {
  ForRowBlocks(args, task, [&](const AttentionRow* rows, int count) {
    for (int r = 0; r < count; ++r) BeginRow(args, rows[r]);
  });
  // Windows only move up from token to token.
  const int begin = RowOf(args, task, 1, 0, 0).begin;
  const int end = task.position + task.num_tokens;
  for (int base = begin / kAttentionPartition * kAttentionPartition; base < end; base += kAttentionPartition) {
    const Partition<Cache> partition = PartitionAt<Cache>(args, task, base, begin, end);
    ForRowBlocks(args, task,
                 [&](const AttentionRow* rows, int count) { AttendRows<Cache>(args, rows, count, partition, base); });
  }
  ForRowBlocks(args, task, [&](const AttentionRow* rows, int count) {
    for (int r = 0; r < count; ++r) FinishRow<Cache>(args, rows[r]);
  });
}

}  // namespace attention

size_t AttentionScratchFloats(int num_heads, int num_kv_heads, int head_dim) {
  const int num_rows = kAttentionQueryTile * (num_heads / num_kv_heads);
  return static_cast<size_t>(num_rows) * static_cast<size_t>(attention::StateFloats(head_dim));
}

void Attention(const AttentionArgs& args, const AttentionTask& task) {
  switch (args.storage) {
    case Storage::kFloat32:
      return attention::AttentionOver<attention::Float32Cache>(args, task);
    case Storage::kBFloat16:
      return attention::AttentionOver<attention::BFloat16Cache>(args, task);
    case Storage::kFloat16:
      return attention::AttentionOver<attention::Float16Cache>(args, task);
    case Storage::kInt8:
      return attention::AttentionOver<attention::Int8Cache>(args, task);
  }
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
