// Problems of paged attention in which every sequence has one token in the step, and their solution: softmax in double
// on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "cached_rows.h"

namespace heddle::test::decode {

inline const std::vector<int32_t> kMixedLengths = {17, 1, 1000, 0, 15, 5000, 16, 255, 64, 65};

struct Shape {
  HeddleCudaDType dtype = kHeddleCudaBFloat16;
  HeddleCudaDType cache_dtype = kHeddleCudaBFloat16;
  int head_dim = 128;
  int num_kv_heads = 2;
  int group_size = 4;
  int block_size = 16;
  std::vector<int32_t> lengths = kMixedLengths;
  int sliding_window = 0;
  float soft_cap = 0;
  float deviation = 1;  // of queries
  int max_seq_len = 0;  // the longest of lengths when 0

  int num_heads() const { return num_kv_heads * group_size; }
  int num_seqs() const { return static_cast<int>(lengths.size()); }
  int64_t size() const { return int64_t{num_heads()} * head_dim; }
  int64_t stride() const { return (size() + 7) / 8 * 8 + 8; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  int max_length() const { return std::max(max_seq_len, *std::max_element(lengths.begin(), lengths.end())); }
};

inline std::string Describe(const Shape& shape) {
  std::ostringstream text;
  text << NameOf(shape.dtype) << " with cache of " << NameOf(shape.cache_dtype) << ", head_dim " << shape.head_dim
       << ", " << shape.num_kv_heads << " * " << shape.group_size << " heads, blocks of " << shape.block_size
       << ", window " << shape.sliding_window << ", cap " << shape.soft_cap << ", " << shape.num_seqs() << " sequences";
  return text.str();
}

// A cache in which every slot that no sequence sees holds NaN, the blocks of the sequences lie in no order, and the
// block table holds numbers that are no blocks wherever nothing is seen.
class Problem {
 public:
  Problem(TestStream& stream, Shape shape)
      : shape_(std::move(shape)),
        max_blocks_((shape_.max_length() + shape_.block_size - 1) / shape_.block_size + 3),
        table_(MakeTable()),
        q_(MakeQueries()),
        keys_(MakeCache(2)),
        values_(MakeCache(3)),
        device_q_(DeviceArray::From(stream, shape_.dtype, q_)),
        device_keys_(CachedRows(stream, shape_.cache_dtype, keys_, shape_.head_dim)),
        device_values_(CachedRows(stream, shape_.cache_dtype, values_, shape_.head_dim)),
        device_starts_(DeviceArray::Ints(stream, Starts())),
        device_lengths_(DeviceArray::Ints(stream, shape_.lengths)),
        device_table_(DeviceArray::Ints(stream, table_)),
        out_(DeviceArray::Poisoned(stream, shape_.dtype, OutCount())) {
    q_ = Rounded(shape_.dtype, std::move(q_));
    keys_ = RoundedRows(shape_.cache_dtype, std::move(keys_), shape_.head_dim);
    values_ = RoundedRows(shape_.cache_dtype, std::move(values_), shape_.head_dim);
  }

  HeddleCudaPagedAttention Op() const {
    return {.q = Matrix(device_q_, shape_.dtype, shape_.num_seqs(), shape_.size(), shape_.stride()),
            .cache = {device_keys_.data(), device_values_.data(), shape_.cache_dtype, num_blocks_, shape_.num_kv_heads,
                      shape_.block_size, shape_.head_dim},
            .query_start_loc = device_starts_.As<int32_t>(),
            .seq_lens = device_lengths_.As<int32_t>(),
            .block_table = device_table_.As<int32_t>(),
            .block_table_stride = max_blocks_,
            .num_seqs = shape_.num_seqs(),
            .max_query_len = 1,
            .max_seq_len = shape_.max_length(),
            .num_heads = shape_.num_heads(),
            .scale = shape_.scale(),
            .sliding_window = shape_.sliding_window,
            .soft_cap = shape_.soft_cap,
            .out = Matrix(out_, shape_.dtype, shape_.num_seqs(), shape_.size(), shape_.stride())};
  }

  // The output's rows, with the gaps between them.
  std::vector<float> Run(TestStream& stream) const {
    const HeddleCudaPagedAttention op = Op();
    MustSucceed(Api().paged_attention(stream.get(), &op), "paged_attention");
    return out_.ToHost();
  }
  std::vector<float> Output() const { return out_.ToHost(); }

  // Shorter lengths, in the memory that the op reads them from.
  void SetLengths(TestStream& stream, const std::vector<int32_t>& lengths) {
    const DeviceArray from = DeviceArray::Ints(stream, lengths);
    const auto bytes = static_cast<int64_t>(lengths.size() * sizeof(int32_t));
    MustSucceed(Api().copy(stream.get(), device_lengths_.data(), from.data(), bytes), "copy");
    shape_.lengths = lengths;
  }

  // As they were before ops wrote over them.
  void ResetQueries(TestStream& stream) const {
    const DeviceArray from = DeviceArray::From(stream, shape_.dtype, q_);
    const auto bytes = static_cast<int64_t>(q_.size() * (shape_.dtype == kHeddleCudaFloat32 ? 4 : 2));
    MustSucceed(Api().copy(stream.get(), device_q_.data(), from.data(), bytes), "copy");
  }

  // Every row that is no padding has the expected values, and the gaps are as they were.
  void Check(const std::vector<float>& out) const {
    EXPECT_TRUE(GapsAreNaN(out, shape_.num_seqs(), shape_.size(), shape_.stride()));
    for (int seq = 0; seq < shape_.num_seqs(); ++seq) {
      if (shape_.lengths[static_cast<size_t>(seq)] == 0) continue;
      const auto row = out.begin() + seq * shape_.stride();
      const double error = RelativeError({row, row + shape_.size()}, Expected(seq));
      if (error <= Tolerance(shape_.dtype)) continue;
      Fail(__FILE__, __LINE__,
           "sequence " + std::to_string(seq) + " of length " +
               std::to_string(shape_.lengths[static_cast<size_t>(seq)]) + " is off by " + std::to_string(error) + ": " +
               Describe(shape_));
    }
  }

  const std::vector<int32_t>& table() const { return table_; }
  int32_t UnusedBlock() const {
    int32_t block = 0;
    while (std::find(table_.begin(), table_.end(), block) != table_.end()) ++block;
    return block;
  }

 private:
  // Of one sequence's row.
  std::vector<double> Expected(int seq) const {
    std::vector<double> row;
    for (int head = 0; head < shape_.num_heads(); ++head) {
      const std::vector<double> values = ExpectedHead(seq, head);
      row.insert(row.end(), values.begin(), values.end());
    }
    return row;
  }

  int KeyBegin(int seq) const {
    const int length = shape_.lengths[static_cast<size_t>(seq)];
    return shape_.sliding_window > 0 ? std::max(0, length - shape_.sliding_window) : 0;
  }

  size_t OutCount() const { return static_cast<size_t>(shape_.num_seqs() * shape_.stride()); }

  std::vector<int32_t> Starts() const {
    std::vector<int32_t> starts(shape_.lengths.size() + 1);
    std::iota(starts.begin(), starts.end(), 0);
    return starts;
  }

  // Two blocks more than are needed, which no entry names.
  std::vector<int32_t> MakeTable() {
    const auto num_seqs = static_cast<size_t>(shape_.num_seqs());
    std::vector<int32_t> table(num_seqs * static_cast<size_t>(max_blocks_));
    for (size_t i = 0; i < table.size(); ++i) table[i] = i % 2 == 0 ? -1 : std::numeric_limits<int32_t>::max();
    std::vector<size_t> used;
    for (int seq = 0; seq < shape_.num_seqs(); ++seq) {
      const int length = shape_.lengths[static_cast<size_t>(seq)];
      for (int block = KeyBegin(seq) / shape_.block_size; block * shape_.block_size < length; ++block) {
        used.push_back(static_cast<size_t>(seq * max_blocks_ + block));
      }
    }
    std::vector<int32_t> blocks(used.size() + 2);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937_64(4));
    for (size_t i = 0; i < used.size(); ++i) table[used[i]] = blocks[i];
    num_blocks_ = static_cast<int64_t>(blocks.size());
    return table;
  }

  std::vector<float> MakeQueries() const { return RandomFloats(OutCount(), 1, shape_.deviation); }

  // First element of a token's key or value.
  size_t OffsetOf(int seq, int token, int kv_head) const {
    const int64_t block = table_[static_cast<size_t>(seq * max_blocks_ + token / shape_.block_size)];
    const int64_t row = (block * shape_.num_kv_heads + kv_head) * shape_.block_size + token % shape_.block_size;
    return static_cast<size_t>(row * shape_.head_dim);
  }

  std::vector<float> MakeCache(uint64_t seed) const {
    const int64_t count = num_blocks_ * shape_.num_kv_heads * shape_.block_size * shape_.head_dim;
    const std::vector<float> random = RandomFloats(static_cast<size_t>(count), seed);
    std::vector<float> cache(random.size(), std::numeric_limits<float>::quiet_NaN());
    for (int seq = 0; seq < shape_.num_seqs(); ++seq) {
      for (int token = KeyBegin(seq); token < shape_.lengths[static_cast<size_t>(seq)]; ++token) {
        for (int head = 0; head < shape_.num_kv_heads; ++head) {
          const size_t offset = OffsetOf(seq, token, head);
          std::copy_n(random.begin() + static_cast<int64_t>(offset), shape_.head_dim,
                      cache.begin() + static_cast<int64_t>(offset));
        }
      }
    }
    return cache;
  }

  std::vector<double> ExpectedHead(int seq, int head) const {
    const int length = shape_.lengths[static_cast<size_t>(seq)];
    const float* q = q_.data() + seq * shape_.stride() + head * shape_.head_dim;
    std::vector<double> scores;
    for (int token = KeyBegin(seq); token < length; ++token) {
      const float* key = keys_.data() + OffsetOf(seq, token, head / shape_.group_size);
      double score = 0;
      for (int i = 0; i < shape_.head_dim; ++i) score += double{q[i]} * key[i];
      score *= shape_.scale();
      scores.push_back(shape_.soft_cap > 0 ? shape_.soft_cap * std::tanh(score / shape_.soft_cap) : score);
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    std::vector<double> out(static_cast<size_t>(shape_.head_dim));
    double sum = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      const double weight = std::exp(scores[i] - max);
      const float* value =
          values_.data() + OffsetOf(seq, KeyBegin(seq) + static_cast<int>(i), head / shape_.group_size);
      for (size_t j = 0; j < out.size(); ++j) out[j] += weight * value[j];
      sum += weight;
    }
    for (double& value : out) value /= sum;
    return out;
  }

  Shape shape_;
  int max_blocks_;
  int64_t num_blocks_ = 0;
  std::vector<int32_t> table_;
  std::vector<float> q_, keys_, values_;
  DeviceArray device_q_, device_keys_, device_values_;
  DeviceArray device_starts_, device_lengths_, device_table_;
  DeviceArray out_;
};

}  // namespace heddle::test::decode
