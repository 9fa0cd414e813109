// Paged attention against its reference, and the independence of every row from what is computed beside it.
#include <cmath>
#include <limits>
#include <string>

#include "ops/cpu/reference.h"
#include "ops/ops.h"
#include "tensor_testing.h"

namespace heddle {
namespace {

using test::MaxError;
using test::Random;
using test::SameBits;
using test::TestTensor;

constexpr DType kF32 = DType::kFloat32;

struct Config {
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 16;
  int block_size = 16;
  DType dtype = DType::kBFloat16;
  int sliding_window = 0;
  float soft_cap = 0;

  int64_t q_size() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_size() const { return int64_t{num_kv_heads} * head_dim; }
};

// Sequences with random queries, keys and values, a cache whose unwritten slots hold NaN, and the attention computed so
// far. The content depends on the seed of each sequence alone, its blocks on `placement`.
class Scene {
 public:
  Scene(const Config& config, const std::vector<int>& seq_lens, uint64_t first_seed = 1, uint64_t placement = 1)
      : config_(config),
        seq_lens_(seq_lens),
        num_computed_(seq_lens.size()),
        max_blocks_(MaxBlocks()),
        num_blocks_(static_cast<int>(seq_lens.size()) * max_blocks_ + 1),
        keys_(config.dtype, {num_blocks_, config.num_kv_heads, config.head_dim, config.block_size}),
        values_(config.dtype, {num_blocks_, config.num_kv_heads, config.block_size, config.head_dim}),
        key_scales_(kF32, {config.dtype == DType::kInt8 ? num_blocks_ : 0, config.num_kv_heads, config.block_size}),
        value_scales_(key_scales_.DeepCopy()) {
    for (size_t seq = 0; seq < seq_lens.size(); ++seq) {
      Random random(first_seed + seq);
      q_.push_back(TestTensor(kF32, {seq_lens[seq], config.q_size()}).Fill(random, -3, 3));
      k_.push_back(TestTensor(kF32, {seq_lens[seq], config.kv_size()}).Fill(random, -1, 1));
      v_.push_back(TestTensor(kF32, {seq_lens[seq], config.kv_size()}).Fill(random, -1, 1));
      out_.emplace_back(kF32, Shape{seq_lens[seq], config.q_size()});
    }
    // Block 0 belongs to nobody; the others are dealt out in random order.
    for (int block = 1; block < num_blocks_; ++block) block_table_.push_back(block);
    Random random(placement);
    for (size_t i = block_table_.size(); i > 1; --i) {
      std::swap(block_table_[i - 1], block_table_[static_cast<size_t>(random.Below(static_cast<int64_t>(i)))]);
    }
  }

  // Stores and attends the next num_tokens[s] tokens of each sequence s.
  void Step(Stream& stream, const std::vector<int>& num_tokens) {
    Batch batch(*this, num_tokens);
    ops::RotateAndStore(stream, std::vector<int32_t>(batch.slot_mapping.size()), TensorView(nullptr, kF32, {1, 0}),
                        batch.q, batch.k, batch.v, batch.slot_mapping, cache());
    ops::PagedAttention(stream, batch.q, cache(), batch.metadata, params(), batch.out);
    Collect(batch, num_tokens);
  }

  // Everything at once.
  Scene& Whole(Stream& stream) {
    Step(stream, seq_lens_);
    return *this;
  }

  // In pieces of `chunk` tokens.
  Scene& Chunked(Stream& stream, int chunk) {
    for (bool more = true; more;) {
      std::vector<int> num_tokens;
      for (size_t seq = 0; seq < seq_lens_.size(); ++seq) {
        num_tokens.push_back(std::min(chunk, seq_lens_[seq] - num_computed_[seq]));
      }
      Step(stream, num_tokens);
      more = num_computed_ != seq_lens_;
    }
    return *this;
  }

  // Everything at once, by the reference.
  Scene& Reference() {
    Batch batch(*this, seq_lens_);
    ops::reference::StoreKVCache(batch.k, batch.v, batch.slot_mapping, cache());
    ops::reference::PagedAttention(batch.q, cache(), batch.metadata, params(), batch.out);
    Collect(batch, seq_lens_);
    return *this;
  }

  // Overwrites with NaN, and takes out of the block table, the blocks that slid out of the window of every token yet
  // to come.
  void RecycleBlocks() {
    for (size_t seq = 0; seq < seq_lens_.size(); ++seq) {
      const int window_begin = num_computed_[seq] - config_.sliding_window + 1;
      for (int i = 0; (i + 1) * config_.block_size <= window_begin; ++i) {
        int32_t& block = block_table_[seq * static_cast<size_t>(max_blocks_) + static_cast<size_t>(i)];
        if (block < 0) continue;
        const int64_t size = config_.kv_size() * config_.block_size;
        for (int64_t j = 0; j < size; ++j) {
          test::SetElement(keys_, block * size + j, std::nanf(""));
          test::SetElement(values_, block * size + j, std::nanf(""));
        }
        if (config_.dtype == DType::kInt8) {
          for (const TestTensor* scales : {&key_scales_, &value_scales_}) {
            std::fill_n(scales->Row(block), config_.num_kv_heads * config_.block_size, std::nanf(""));
          }
        }
        block = -1;
      }
    }
  }

  // Makes the key and the value of this and every later token of sequence 0 infinite.
  void Poison(int position) {
    for (int64_t i = position; i < k_[0].view().dim(0); ++i) {
      std::fill_n(k_[0].Row(i), config_.kv_size(), std::numeric_limits<float>::infinity());
      std::fill_n(v_[0].Row(i), config_.kv_size(), std::numeric_limits<float>::infinity());
    }
  }

  // Makes the key and the value of one token of sequence 0 zero.
  void Clear(int position) {
    std::fill_n(k_[0].Row(position), config_.kv_size(), 0.0f);
    std::fill_n(v_[0].Row(position), config_.kv_size(), 0.0f);
  }

  void ScaleQueries(float factor) {
    for (int64_t i = 0; i < q_[0].view().dim(0); ++i) {
      for (int64_t j = 0; j < config_.q_size(); ++j) q_[0].Row(i)[j] *= factor;
    }
  }

  const TestTensor& out(size_t seq) const { return out_[seq]; }
  ops::KVCacheView cache() const { return {keys_, values_, config_.block_size, key_scales_, value_scales_}; }
  std::vector<int32_t>& block_table() { return block_table_; }

  ops::AttentionParams params() const {
    return {.num_heads = config_.num_heads,
            .num_kv_heads = config_.num_kv_heads,
            .head_dim = config_.head_dim,
            .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
            .sliding_window = config_.sliding_window,
            .soft_cap = config_.soft_cap};
  }

 private:
  // The tensors of one step; rows lie apart as in a fused projection.
  struct Batch {
    Batch(const Scene& scene, const std::vector<int>& num_tokens)
        : total(Sum(num_tokens)),
          q(kF32, {total, scene.config_.q_size()}, 7),
          k(kF32, {total, scene.config_.kv_size()}, 3),
          v(kF32, {total, scene.config_.kv_size()}, 3),
          out(kF32, {total, scene.config_.q_size()}, 1) {
      int64_t row = 0;
      query_start_loc.push_back(0);
      for (size_t seq = 0; seq < num_tokens.size(); ++seq) {
        for (int i = 0; i < num_tokens[seq]; ++i, ++row) {
          const int position = scene.num_computed_[seq] + i;
          std::copy_n(scene.q_[seq].Row(position), scene.config_.q_size(), q.Row(row));
          std::copy_n(scene.k_[seq].Row(position), scene.config_.kv_size(), k.Row(row));
          std::copy_n(scene.v_[seq].Row(position), scene.config_.kv_size(), v.Row(row));
          const size_t block =
              seq * static_cast<size_t>(scene.max_blocks_) + static_cast<size_t>(position / scene.config_.block_size);
          slot_mapping.push_back(int64_t{scene.block_table_[block]} * scene.config_.block_size +
                                 position % scene.config_.block_size);
        }
        query_start_loc.push_back(static_cast<int32_t>(row));
        seq_lens.push_back(scene.num_computed_[seq] + num_tokens[seq]);
      }
      metadata = {query_start_loc, seq_lens, scene.block_table_, scene.max_blocks_};
    }

    static int64_t Sum(const std::vector<int>& counts) {
      int64_t sum = 0;
      for (int count : counts) sum += count;
      return sum;
    }

    int64_t total;
    TestTensor q, k, v, out;
    std::vector<int64_t> slot_mapping;
    std::vector<int32_t> query_start_loc, seq_lens;
    ops::AttentionMetadata metadata;
  };

  int MaxBlocks() const {
    const int longest = *std::max_element(seq_lens_.begin(), seq_lens_.end());
    return (longest + config_.block_size - 1) / config_.block_size;
  }

  void Collect(const Batch& batch, const std::vector<int>& num_tokens) {
    int64_t row = 0;
    for (size_t seq = 0; seq < num_tokens.size(); ++seq) {
      for (int i = 0; i < num_tokens[seq]; ++i) {
        std::copy_n(batch.out.Row(row++), config_.q_size(), out_[seq].Row(num_computed_[seq]++));
      }
    }
  }

  Config config_;
  std::vector<int> seq_lens_;
  std::vector<int> num_computed_;
  int max_blocks_;
  int num_blocks_;
  TestTensor keys_;
  TestTensor values_;
  TestTensor key_scales_;  // of an int8 cache
  TestTensor value_scales_;
  std::vector<int32_t> block_table_;  // [num_seqs, max_blocks_]
  std::vector<TestTensor> q_, k_, v_, out_;
};

// What the tests vary: every group size, head_dim, block size, dtype, window and cap at least once.
const std::vector<Config> kConfigs = {
    {.num_heads = 2, .num_kv_heads = 2, .head_dim = 16, .block_size = 16, .dtype = kF32},
    {.num_heads = 4, .num_kv_heads = 2, .head_dim = 24, .block_size = 16, .dtype = DType::kBFloat16},
    {.num_heads = 8, .num_kv_heads = 2, .head_dim = 64, .block_size = 32, .dtype = DType::kBFloat16},
    {.num_heads = 7, .num_kv_heads = 1, .head_dim = 80, .block_size = 16, .dtype = DType::kFloat16},
    {.num_heads = 4, .num_kv_heads = 1, .head_dim = 128, .block_size = 32, .dtype = kF32, .sliding_window = 20},
    {.num_heads = 2, .num_kv_heads = 1, .head_dim = 256, .block_size = 16, .dtype = kF32, .soft_cap = 2.5f},
    {.num_heads = 3, .num_kv_heads = 3, .head_dim = 24, .block_size = 48, .dtype = kF32, .sliding_window = 3},
    {.num_heads = 6, .num_kv_heads = 2, .head_dim = 2, .block_size = 16, .sliding_window = 64, .soft_cap = 5},
    {.num_heads = 2, .num_kv_heads = 1, .head_dim = 10, .block_size = 32, .dtype = kF32, .sliding_window = 1},
    {.num_heads = 68, .num_kv_heads = 1, .head_dim = 16, .block_size = 16, .dtype = kF32, .sliding_window = 70},
    {.num_heads = 8, .num_kv_heads = 2, .head_dim = 64, .block_size = 16, .dtype = DType::kInt8},
    {.num_heads = 3, .num_kv_heads = 3, .head_dim = 10, .block_size = 48, .dtype = DType::kInt8, .soft_cap = 2.5f},
    {.num_heads = 7, .num_kv_heads = 1, .head_dim = 80, .block_size = 32, .dtype = DType::kInt8, .sliding_window = 20},
    {.num_heads = 4, .num_kv_heads = 2, .head_dim = 2, .block_size = 16, .dtype = DType::kInt8, .sliding_window = 1},
};

template <typename Body>
void ForIsasAndConfigs(const Body& body) {
  for (CpuIsa isa : test::RunnableIsas()) {
    Stream stream(1, true, isa);
    for (const Config& config : kConfigs) body(stream, config);
  }
}

TEST(PagedAttention, "agrees with the reference for every shape, dtype, window and cap") {
  ForIsasAndConfigs([](Stream& stream, const Config& config) {
    for (int seq_len : {1, 16, 17, 64, 65, 150}) {
      Scene expected(config, {seq_len});
      Scene actual(config, {seq_len});
      EXPECT_NEAR(MaxError(actual.Whole(stream).out(0), expected.Reference().out(0)), 0, 2e-6);
    }
  });
}

TEST(PagedAttention, "gives the same bits whole, in chunks and token by token") {
  ForIsasAndConfigs([](Stream& stream, const Config& config) {
    Scene whole(config, {150});
    whole.Whole(stream);
    for (int chunk : {1, 5, 16, 64, 149}) {
      Scene chunked(config, {150});
      EXPECT_TRUE(SameBits(chunked.Chunked(stream, chunk).out(0), whole.out(0)));
    }
  });
}

TEST(PagedAttention, "gives every sequence of a mixed batch the bits it has alone, wherever its blocks lie") {
  const std::vector<int> seq_lens = {1, 70, 17, 200, 64, 130};
  ForIsasAndConfigs([&](Stream& stream, const Config& config) {
    Scene batch(config, seq_lens, 1, 7);
    // Prompts, pieces of prompts and single tokens in the same step.
    batch.Step(stream, {0, 30, 16, 120, 64, 0});
    batch.Step(stream, {1, 39, 1, 1, 0, 129});
    batch.Step(stream, {0, 1, 0, 79, 0, 1});
    for (size_t seq = 0; seq < seq_lens.size(); ++seq) {
      Scene alone(config, {seq_lens[seq]}, 1 + seq, 3);
      EXPECT_TRUE(SameBits(batch.out(seq), alone.Whole(stream).out(0)));
    }
  });
}

TEST(PagedAttention, "gives the same bits with one thread and three, and again in the same stream") {
  for (CpuIsa isa : test::RunnableIsas()) {
    Stream one(1, true, isa);
    Stream three(3, true, isa);
    for (const Config& config : kConfigs) {
      Scene a(config, {100, 33, 200});
      a.Whole(one);
      for (Stream* stream : {&three, &three, &one}) {
        Scene b(config, {100, 33, 200});
        b.Whole(*stream);
        for (size_t seq = 0; seq < 3; ++seq) EXPECT_TRUE(SameBits(a.out(seq), b.out(seq)));
      }
    }
  }
}

TEST(PagedAttention, "gives AVX2 and AVX-512 the same bits") {
  if (DetectCpuIsa() < CpuIsa::kAvx512) SKIP("no AVX-512 here");
  Stream narrow(1, true, CpuIsa::kAvx2);
  Stream wide(1, true, CpuIsa::kAvx512);
  for (const Config& config : kConfigs) {
    Scene a(config, {150});
    Scene b(config, {150});
    EXPECT_TRUE(SameBits(a.Whole(narrow).out(0), b.Whole(wide).out(0)));
  }
}

TEST(PagedAttention, "does not read blocks that slid out of the window, nor their places in the table") {
  ForIsasAndConfigs([](Stream& stream, const Config& config) {
    if (config.sliding_window == 0) return;
    Scene whole(config, {150});
    Scene recycled(config, {150});
    whole.Whole(stream);
    for (int i = 0; i < 150; i += 5) {
      recycled.Step(stream, {5});
      recycled.RecycleBlocks();
    }
    EXPECT_TRUE(SameBits(recycled.out(0), whole.out(0)));
  });
}

TEST(PagedAttention, "lets no later token of the same step disturb an earlier one, not even by infinities") {
  ForIsasAndConfigs([](Stream& stream, const Config& config) {
    Scene clean(config, {40});
    clean.Whole(stream);
    Scene poisoned(config, {40});
    poisoned.Poison(25);
    poisoned.Whole(stream);
    const TensorView before = clean.out(0).view().Rows(0, 25);
    EXPECT_TRUE(SameBits(poisoned.out(0).view().Rows(0, 25), before));
    EXPECT_TRUE(!std::isfinite(poisoned.out(0).Row(25)[0]));
  });
}

TEST(PagedAttention, "takes tokens whose keys and values are zero as such") {
  ForIsasAndConfigs([](Stream& stream, const Config& config) {
    Scene expected(config, {90});
    Scene actual(config, {90});
    for (Scene* scene : {&expected, &actual}) {
      for (const int position : {0, 17, 18, 64, 89}) scene->Clear(position);
    }
    EXPECT_NEAR(MaxError(actual.Whole(stream).out(0), expected.Reference().out(0)), 0, 2e-6);
  });
}

TEST(PagedAttention, "over int8 keys and values is close to that over floats") {
  ForIsasAndConfigs([](Stream& stream, Config config) {
    if (config.dtype != DType::kInt8) return;
    Scene rounded(config, {150});
    rounded.Whole(stream);
    config.dtype = kF32;
    Scene plain(config, {150});
    EXPECT_NEAR(MaxError(rounded.out(0), plain.Whole(stream).out(0)), 0, 0.015);
  });
}

TEST(PagedAttention, "stays exact for scores far apart and far from zero") {
  ForIsasAndConfigs([](Stream& stream, const Config& config) {
    Scene expected(config, {90});
    Scene actual(config, {90});
    for (Scene* scene : {&expected, &actual}) scene->ScaleQueries(1e4f);
    EXPECT_NEAR(MaxError(actual.Whole(stream).out(0), expected.Reference().out(0)), 0, 5e-2);
    for (int64_t row = 0; row < 90; ++row) EXPECT_TRUE(std::isfinite(actual.out(0).Row(row)[0]));
  });
}

TEST(PagedAttention, "refuses metadata that points outside the cache or the table") {
  Stream stream(1, true, CpuIsa::kScalar);
  const Config config;
  for (int32_t block : {-1, 1000}) {
    Scene scene(config, {40});
    scene.Step(stream, {39});
    scene.block_table()[0] = block;
    EXPECT_ERROR(ErrorCode::kInternal, scene.Step(stream, {1}));
  }
  Scene scene(config, {40});
  const std::vector<int32_t> starts = {0, 1};
  const std::vector<int32_t> seq_lens = {49};
  const ops::AttentionMetadata metadata{starts, seq_lens, scene.block_table(), 3};
  const TestTensor q(kF32, {1, config.q_size()});
  TestTensor out(kF32, {1, config.q_size()});
  EXPECT_ERROR(ErrorCode::kInternal, ops::PagedAttention(stream, q, scene.cache(), metadata, scene.params(), out));
}

}  // namespace
}  // namespace heddle
