// Paged attention where sequences have any number of tokens in the step, against softmax in double on the host.
//
// The op chooses its kernel by its arguments. On compute capability 9.0, queries and cache of one 16-bit type with a
// head_dim of 64, 96, 128 or 256 go to the kernel for Hopper; with a soft cap, or more than 128 query heads a KV head,
// to the one for any tensor cores; everything else to the one without. Elsewhere the first kind goes where the second
// does. Int8 caches go where those of the queries' type would.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "cached_rows.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kF16 = kHeddleCudaFloat16;
constexpr HeddleCudaDType kBF16 = kHeddleCudaBFloat16;
constexpr HeddleCudaDType kInt8 = kHeddleCudaInt8;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Sequence {
  int context;  // before the step
  int tokens;   // of the step

  int length() const { return context + tokens; }
};

const std::vector<Sequence> kShort = {{0, 1}, {5, 2}, {16, 15}, {333, 16}, {0, 17}, {5, 63}, {16, 64}, {333, 65}};
const std::vector<Sequence> kMixed = {{333, 1}, {0, 127}, {5, 128}, {16, 129}, {0, 1}, {333, 300}, {700, 1}, {15, 1}};

struct Shape {
  HeddleCudaDType dtype = kBF16;
  HeddleCudaDType cache_dtype = kBF16;
  int head_dim = 128;
  int num_kv_heads = 2;
  int group_size = 4;
  std::vector<Sequence> sequences = kShort;
  int block_size = 16;
  int sliding_window = 0;
  float soft_cap = 0;
  float deviation = 1;  // of queries
  float scale_sign = 1;
  int num_padding = 0;  // sequences of length 0, one row each

  int num_heads() const { return num_kv_heads * group_size; }
  int64_t size() const { return int64_t{num_heads()} * head_dim; }
  int64_t stride() const { return (size() + 7) / 8 * 8 + 8; }
  float scale() const { return scale_sign / std::sqrt(static_cast<float>(head_dim)); }
  int num_tokens() const {
    const auto add = [](int sum, const Sequence& each) { return sum + each.tokens; };
    return std::accumulate(sequences.begin(), sequences.end(), num_padding, add);
  }
  int KeyBegin(int position) const { return sliding_window > 0 ? std::max(0, position - sliding_window + 1) : 0; }
};

std::string Describe(const Shape& shape) {
  std::ostringstream text;
  text << NameOf(shape.dtype) << " with cache of " << NameOf(shape.cache_dtype) << ", head_dim " << shape.head_dim
       << ", " << shape.num_kv_heads << " * " << shape.group_size << " heads, blocks of " << shape.block_size
       << ", window " << shape.sliding_window << ", cap " << shape.soft_cap << ", " << shape.sequences.size()
       << " sequences";
  return text.str();
}

// A cache in which every slot that no token of the step sees holds NaN, the blocks of the sequences lie in no order,
// and the block table holds numbers that are no blocks wherever nothing is seen.
class Problem {
 public:
  Problem(TestStream& stream, Shape shape)
      : shape_(std::move(shape)),
        max_blocks_(MaxBlocks()),
        table_(MakeTable()),
        q_(Rounded(shape_.dtype,
                   RandomFloats(static_cast<size_t>(shape_.num_tokens() * shape_.stride()), 1, shape_.deviation))),
        keys_(MakeCache(2)),
        values_(MakeCache(3)),
        device_q_(DeviceArray::From(stream, shape_.dtype, q_)),
        device_keys_(CachedRows(stream, shape_.cache_dtype, keys_, shape_.head_dim)),
        device_values_(CachedRows(stream, shape_.cache_dtype, values_, shape_.head_dim)),
        device_starts_(DeviceArray::Ints(stream, Starts())),
        device_lengths_(DeviceArray::Ints(stream, Lengths())),
        device_table_(DeviceArray::Ints(stream, table_)),
        out_(DeviceArray::Poisoned(stream, shape_.dtype, q_.size())) {
    keys_ = RoundedRows(shape_.cache_dtype, std::move(keys_), shape_.head_dim);
    values_ = RoundedRows(shape_.cache_dtype, std::move(values_), shape_.head_dim);
  }

  HeddleCudaPagedAttention Op() const {
    int longest_query = shape_.num_padding > 0 ? 1 : 0;
    int longest = 0;
    for (const Sequence& each : shape_.sequences) {
      longest_query = std::max(longest_query, each.tokens);
      longest = std::max(longest, each.length());
    }
    const int64_t rows = shape_.num_tokens();
    return {.q = Matrix(device_q_, shape_.dtype, rows, shape_.size(), shape_.stride()),
            .cache = {device_keys_.data(), device_values_.data(), shape_.cache_dtype, num_blocks_, shape_.num_kv_heads,
                      shape_.block_size, shape_.head_dim},
            .query_start_loc = device_starts_.As<int32_t>(),
            .seq_lens = device_lengths_.As<int32_t>(),
            .block_table = device_table_.As<int32_t>(),
            .block_table_stride = max_blocks_,
            .num_seqs = static_cast<int32_t>(shape_.sequences.size()) + shape_.num_padding,
            .max_query_len = longest_query,
            .max_seq_len = longest,
            .num_heads = shape_.num_heads(),
            .scale = shape_.scale(),
            .sliding_window = shape_.sliding_window,
            .soft_cap = shape_.soft_cap,
            .out = Matrix(out_, shape_.dtype, rows, shape_.size(), shape_.stride())};
  }

  // The output's rows, with the gaps between them.
  std::vector<float> Run(TestStream& stream) const {
    const HeddleCudaPagedAttention op = Op();
    MustSucceed(Api().paged_attention(stream.get(), &op), "paged_attention");
    return Out();
  }
  std::vector<float> Out() const { return out_.ToHost(); }

  // No row of a token has NaN, gaps are as they were, and of each sequence some heads of some tokens, the last one's
  // among them, have the expected values.
  void Check(const std::vector<float>& out) const {
    EXPECT_TRUE(GapsAreNaN(out, shape_.num_tokens(), shape_.size(), shape_.stride()));
    int first_row = 0;
    for (size_t seq = 0; seq < shape_.sequences.size(); ++seq) {
      CheckSequence(out, static_cast<int>(seq), first_row);
      first_row += shape_.sequences[seq].tokens;
    }
  }

 private:
  static constexpr int kSamples = 61;

  void CheckSequence(const std::vector<float>& out, int seq, int first_row) const {
    const Sequence& sequence = shape_.sequences[static_cast<size_t>(seq)];
    const auto head_begin = [&](int i) {
      return out.begin() + (first_row + i / shape_.num_heads()) * shape_.stride() +
             i % shape_.num_heads() * shape_.head_dim;
    };
    const int num_pairs = sequence.tokens * shape_.num_heads();
    int num_nan = 0;
    for (int i = 0; i < num_pairs; ++i) {
      num_nan += static_cast<int>(
          std::count_if(head_begin(i), head_begin(i) + shape_.head_dim, [](float x) { return std::isnan(x); }));
    }
    std::vector<float> actual;
    std::vector<double> expected;
    for (int i = num_pairs - 1; i >= 0; i -= std::max(1, num_pairs / kSamples) | 1) {
      actual.insert(actual.end(), head_begin(i), head_begin(i) + shape_.head_dim);
      const int token = i / shape_.num_heads();
      const std::vector<double> head = Expected(seq, q_.begin() + (head_begin(i) - out.begin()),
                                                sequence.context + token, i % shape_.num_heads() / shape_.group_size);
      expected.insert(expected.end(), head.begin(), head.end());
    }
    const double error = RelativeError(actual, expected);
    if (num_nan == 0 && error <= Tolerance(shape_.dtype)) return;
    Fail(__FILE__, __LINE__,
         "sequence " + std::to_string(seq) + ", " + std::to_string(sequence.tokens) + " tokens after " +
             std::to_string(sequence.context) + ", has " + std::to_string(num_nan) + " NaN and is off by " +
             std::to_string(error) + ": " + Describe(shape_));
  }

  // Of a query head.
  std::vector<double> Expected(int seq, std::vector<float>::const_iterator query, int position, int kv_head) const {
    const int begin = shape_.KeyBegin(position);
    std::vector<double> scores;
    for (int key = begin; key <= position; ++key) {
      const double dot =
          std::inner_product(query, query + shape_.head_dim, keys_.begin() + Slot(seq, key, kv_head), 0.0);
      const double score = dot * shape_.scale();
      scores.push_back(shape_.soft_cap == 0 ? score : shape_.soft_cap * std::tanh(score / shape_.soft_cap));
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    std::vector<double> out(static_cast<size_t>(shape_.head_dim));
    double sum = 0;
    for (int key = begin; key <= position; ++key) {
      const double weight = std::exp(scores[static_cast<size_t>(key - begin)] - max);
      const auto value = values_.begin() + Slot(seq, key, kv_head);
      for (size_t i = 0; i < out.size(); ++i) out[i] += weight * value[static_cast<int64_t>(i)];
      sum += weight;
    }
    for (double& each : out) each /= sum;
    return out;
  }

  // Where a key, or value, of a sequence begins.
  int64_t Slot(int seq, int position, int kv_head) const {
    const int64_t block = table_[static_cast<size_t>(seq * max_blocks_ + position / shape_.block_size)];
    return ((block * shape_.num_kv_heads + kv_head) * shape_.block_size + position % shape_.block_size) *
           shape_.head_dim;
  }

  int MaxBlocks() const {
    int longest = 0;
    for (const Sequence& each : shape_.sequences) longest = std::max(longest, each.length());
    return (longest + shape_.block_size - 1) / shape_.block_size + 2;
  }

  std::vector<int32_t> MakeTable() {
    std::vector<int32_t> table((shape_.sequences.size() + static_cast<size_t>(shape_.num_padding)) *
                               static_cast<size_t>(max_blocks_));
    for (size_t i = 0; i < table.size(); ++i) table[i] = i % 2 == 0 ? -1 : std::numeric_limits<int32_t>::max();
    std::vector<size_t> seen;
    for (size_t seq = 0; seq < shape_.sequences.size(); ++seq) {
      const Sequence& each = shape_.sequences[seq];
      const int end = (each.length() + shape_.block_size - 1) / shape_.block_size;
      for (int block = shape_.KeyBegin(each.context) / shape_.block_size; block < end; ++block) {
        seen.push_back(seq * static_cast<size_t>(max_blocks_) + static_cast<size_t>(block));
      }
    }
    num_blocks_ = static_cast<int64_t>(seen.size()) + 2;
    std::vector<int32_t> blocks(static_cast<size_t>(num_blocks_));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937_64(4));
    for (size_t i = 0; i < seen.size(); ++i) table[seen[i]] = blocks[i];
    return table;
  }

  std::vector<float> MakeCache(uint64_t seed) const {
    const int64_t size = num_blocks_ * shape_.num_kv_heads * shape_.block_size * shape_.head_dim;
    const std::vector<float> random = RandomFloats(static_cast<size_t>(size), seed);
    std::vector<float> cache(random.size(), kNaN);
    for (int seq = 0; seq < static_cast<int>(shape_.sequences.size()); ++seq) {
      const Sequence& each = shape_.sequences[static_cast<size_t>(seq)];
      for (int key = shape_.KeyBegin(each.context); key < each.length(); ++key) {
        for (int head = 0; head < shape_.num_kv_heads; ++head) {
          const int64_t slot = Slot(seq, key, head);
          std::copy_n(random.begin() + slot, shape_.head_dim, cache.begin() + slot);
        }
      }
    }
    return cache;
  }

  std::vector<int32_t> Starts() const {
    std::vector<int32_t> starts = {0};
    for (const Sequence& each : shape_.sequences) starts.push_back(starts.back() + each.tokens);
    for (int i = 0; i < shape_.num_padding; ++i) starts.push_back(starts.back() + 1);
    return starts;
  }

  std::vector<int32_t> Lengths() const {
    std::vector<int32_t> lengths;
    for (const Sequence& each : shape_.sequences) lengths.push_back(each.length());
    lengths.resize(lengths.size() + static_cast<size_t>(shape_.num_padding), 0);
    return lengths;
  }

  Shape shape_;
  int max_blocks_;          // of a sequence, in the table
  int64_t num_blocks_ = 0;  // of the cache
  std::vector<int32_t> table_;
  std::vector<float> q_;       // [tokens, stride]
  std::vector<float> keys_;    // the cache
  std::vector<float> values_;  // likewise
  DeviceArray device_q_;
  DeviceArray device_keys_;
  DeviceArray device_values_;
  DeviceArray device_starts_;
  DeviceArray device_lengths_;
  DeviceArray device_table_;
  DeviceArray out_;
};

void Check(TestStream& stream, const Shape& shape) {
  const Problem problem(stream, shape);
  problem.Check(problem.Run(stream));
}

// Each kernel that a type and head_dim can have: with a soft cap another one than without.
void CheckCapped(TestStream& stream, Shape shape) {
  Check(stream, shape);
  shape.soft_cap = 20;
  Check(stream, shape);
}

TEST(CudaPrefillAttention, "agrees with softmax in double, in every type and head_dim") {
  TestStream stream;
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (HeddleCudaDType cache_dtype : {dtype, kInt8}) {
      for (int head_dim : {64, 80, 96, 128, 256}) {
        CheckCapped(stream, {.dtype = dtype, .cache_dtype = cache_dtype, .head_dim = head_dim, .sequences = kShort});
        CheckCapped(stream, {.dtype = dtype, .cache_dtype = cache_dtype, .head_dim = head_dim, .sequences = kMixed});
      }
    }
  }
}

TEST(CudaPrefillAttention, "takes caches of another type than the queries, and heads of odd sizes") {
  TestStream stream;
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (HeddleCudaDType cache_dtype : kAllCacheDTypes) {
      CheckCapped(stream, {.dtype = dtype, .cache_dtype = cache_dtype, .sequences = {{5, 33}, {0, 1}}});
    }
    for (int head_dim : {2, 8, 40, 66, 130, 512}) {
      for (HeddleCudaDType cache_dtype : {dtype, kInt8}) {
        CheckCapped(stream,
                    {.dtype = dtype, .cache_dtype = cache_dtype, .head_dim = head_dim, .sequences = {{5, 33}, {9, 1}}});
      }
    }
  }
}

TEST(CudaPrefillAttention, "takes any number of query heads a KV head") {
  TestStream stream;
  for (int head_dim : {64, 128, 256}) {
    for (int group_size : {1, 2, 3, 5, 7, 8, 12, 16, 71, 128}) {
      CheckCapped(stream, {.head_dim = head_dim,
                           .num_kv_heads = group_size > 16 ? 1 : 2,
                           .group_size = group_size,
                           .sequences = {{333, 1}, {5, 63}, {0, 130}, {16, 2}}});
    }
  }
  Check(stream, {.head_dim = 64, .num_kv_heads = 1, .group_size = 130, .sequences = {{333, 1}, {5, 63}}});
}

TEST(CudaPrefillAttention, "takes every size of blocks") {
  TestStream stream;
  for (int block_size : {16, 32, 64, 128}) {
    for (int head_dim : {64, 96, 128, 256}) {
      for (HeddleCudaDType cache_dtype : {kBF16, kInt8}) {
        CheckCapped(stream,
                    {.cache_dtype = cache_dtype, .head_dim = head_dim, .sequences = kMixed, .block_size = block_size});
      }
    }
    Check(stream, {.dtype = kF32, .cache_dtype = kF32, .sequences = kMixed, .block_size = block_size});
  }
}

TEST(CudaPrefillAttention, "sees no more than the window, whatever lies before it") {
  TestStream stream;
  for (int window : {1, 2, 16, 100, 129, 1000}) {
    for (int head_dim : {64, 128, 256}) {
      for (HeddleCudaDType cache_dtype : {kBF16, kInt8}) {
        CheckCapped(stream, {.cache_dtype = cache_dtype,
                             .head_dim = head_dim,
                             .sequences = kMixed,
                             .block_size = 32,
                             .sliding_window = window});
      }
    }
    Check(stream, {.dtype = kF32, .cache_dtype = kF16, .sequences = kMixed, .sliding_window = window});
  }
}

TEST(CudaPrefillAttention, "takes scores far apart, and scales that turn them around") {
  TestStream stream;
  for (HeddleCudaDType dtype : kAllDTypes) {
    CheckCapped(stream, {.dtype = dtype, .cache_dtype = dtype, .sequences = kMixed, .deviation = 30});
    CheckCapped(stream, {.dtype = dtype, .cache_dtype = dtype, .sequences = kMixed, .scale_sign = -1});
  }
}

TEST(CudaPrefillAttention, "takes long sequences, many blocks at work more than once") {
  TestStream stream;
  for (int head_dim : {64, 128, 256}) {
    for (int group_size : {1, 4}) {
      for (HeddleCudaDType cache_dtype : {kBF16, kInt8}) {
        CheckCapped(stream, {.cache_dtype = cache_dtype,
                             .head_dim = head_dim,
                             .num_kv_heads = 8 / group_size,
                             .group_size = group_size,
                             .sequences = {{0, 4096}, {2000, 1}, {8000, 512}, {1000, 1000}, {0, 333}}});
      }
    }
  }
}

TEST(CudaPrefillAttention, "takes many sequences, some of them padding") {
  TestStream stream;
  std::vector<Sequence> sequences;
  for (int i = 0; i < 300; ++i) sequences.push_back({i % 37, 1 + i % 5 * (i % 3)});
  CheckCapped(stream, {.head_dim = 64, .sequences = sequences, .num_padding = 45});
  CheckCapped(stream, {.cache_dtype = kInt8, .head_dim = 128, .sequences = sequences, .num_padding = 45});
  CheckCapped(stream, {.dtype = kF16, .cache_dtype = kF16, .head_dim = 128, .sequences = sequences, .num_padding = 1});
  Check(stream, {.dtype = kF32, .cache_dtype = kF32, .head_dim = 16, .sequences = sequences, .num_padding = 3});
}

TEST(CudaPrefillAttention, "takes a single row of any stride") {
  TestStream stream;
  for (HeddleCudaDType dtype : {kF16, kBF16}) {
    const Problem problem(stream, {.dtype = dtype, .cache_dtype = dtype, .sequences = {{40, 1}}});
    HeddleCudaPagedAttention op = problem.Op();
    op.max_query_len = 2;  // else it would be decoding
    for (const int64_t stride : {int64_t{0}, int64_t{1}, op.q.size + 1}) {
      op.q.stride = op.out.stride = stride;
      EXPECT_OK(Api().paged_attention(stream.get(), &op));
      problem.Check(problem.Out());
    }
  }
}

TEST(CudaPrefillAttention, "gives the same bits again") {
  TestStream stream;
  for (HeddleCudaDType cache_dtype : {kBF16, kInt8}) {
    for (float soft_cap : {0.0f, 30.0f}) {
      const Problem problem(
          stream, {.cache_dtype = cache_dtype, .sequences = {{0, 1000}, {333, 300}, {5, 1}}, .soft_cap = soft_cap});
      const std::vector<float> first = problem.Run(stream);
      for (int i = 0; i < 20; ++i) {
        const std::vector<float> again = problem.Run(stream);
        EXPECT_TRUE(std::equal(first.begin(), first.end(), again.begin(),
                               [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }));
      }
    }
  }
}

}  // namespace
}  // namespace heddle::test
