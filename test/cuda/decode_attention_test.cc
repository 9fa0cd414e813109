// Paged attention where every sequence has one token in the step.
#include "decode_attention_testing.h"

namespace heddle::test::decode {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kF16 = kHeddleCudaFloat16;
constexpr HeddleCudaDType kBF16 = kHeddleCudaBFloat16;
constexpr HeddleCudaDType kInt8 = kHeddleCudaInt8;

void ExpectRight(TestStream& stream, const Shape& shape) {
  const Problem problem(stream, shape);
  problem.Check(problem.Run(stream));
}

TEST(CudaDecodeAttention, "matches softmax on the host for all types and head sizes") {
  TestStream stream;
  for (const HeddleCudaDType dtype : kAllDTypes) {
    for (const HeddleCudaDType cache_dtype : {dtype, kInt8}) {
      for (const int head_dim : {64, 80, 96, 128, 256}) {
        ExpectRight(stream, {.dtype = dtype, .cache_dtype = cache_dtype, .head_dim = head_dim});
      }
      for (const int head_dim : {2, 130, 258, 512}) {
        ExpectRight(stream,
                    {.dtype = dtype, .cache_dtype = cache_dtype, .head_dim = head_dim, .lengths = {1, 300, 0, 33}});
      }
    }
  }
}

TEST(CudaDecodeAttention, "takes a cache of another type than the queries") {
  TestStream stream;
  for (const HeddleCudaDType dtype : kAllDTypes) {
    for (const HeddleCudaDType cache_dtype : kAllCacheDTypes) {
      ExpectRight(stream, {.dtype = dtype, .cache_dtype = cache_dtype, .lengths = {40, 0, 333}});
    }
  }
}

TEST(CudaDecodeAttention, "takes any number of query heads for a KV head") {
  TestStream stream;
  for (const int group_size : {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33}) {
    for (const int head_dim : {64, 96, 128, 256}) {
      for (const HeddleCudaDType cache_dtype : {kBF16, kInt8}) {
        ExpectRight(
            stream,
            {.cache_dtype = cache_dtype, .head_dim = head_dim, .group_size = group_size, .lengths = {100, 1, 0, 700}});
      }
    }
    ExpectRight(stream, {.dtype = kF32, .cache_dtype = kF32, .group_size = group_size, .lengths = {100, 1, 0, 700}});
  }
}

TEST(CudaDecodeAttention, "takes every size of blocks") {
  TestStream stream;
  for (const int block_size : {16, 32, 64, 128}) {
    for (const HeddleCudaDType dtype : {kF16, kF32}) {
      ExpectRight(stream, {.dtype = dtype, .cache_dtype = dtype, .block_size = block_size});
      ExpectRight(stream, {.dtype = dtype, .cache_dtype = kInt8, .block_size = block_size});
    }
  }
}

TEST(CudaDecodeAttention, "sees no key before the window, whatever became of its block") {
  TestStream stream;
  for (const int window : {1, 2, 15, 16, 17, 63, 64, 65, 300, 4999, 5000, 6000}) {
    ExpectRight(stream, {.sliding_window = window});
    ExpectRight(stream, {.cache_dtype = kInt8, .sliding_window = window});
    ExpectRight(stream,
                {.dtype = kF32, .cache_dtype = kF32, .head_dim = 80, .block_size = 64, .sliding_window = window});
  }
}

TEST(CudaDecodeAttention, "caps scores") {
  TestStream stream;
  for (const HeddleCudaDType dtype : kAllDTypes) {
    for (const float cap : {0.5f, 20.0f, 50.0f}) {
      ExpectRight(stream, {.dtype = dtype, .cache_dtype = dtype, .soft_cap = cap, .deviation = 10});
      ExpectRight(stream, {.dtype = dtype, .cache_dtype = kInt8, .soft_cap = cap, .deviation = 10});
    }
    ExpectRight(stream, {.dtype = dtype,
                         .cache_dtype = dtype,
                         .head_dim = 256,
                         .group_size = 2,
                         .sliding_window = 100,
                         .soft_cap = 30});
  }
}

TEST(CudaDecodeAttention, "is as right where single keys outweigh all others") {
  TestStream stream;
  for (const HeddleCudaDType dtype : kAllDTypes) {
    ExpectRight(stream, {.dtype = dtype, .cache_dtype = dtype, .deviation = 50});
    ExpectRight(stream, {.dtype = dtype, .cache_dtype = kInt8, .deviation = 50});
  }
}

TEST(CudaDecodeAttention, "divides one long context among many blocks") {
  TestStream stream;
  for (const HeddleCudaDType dtype : kAllDTypes) {
    for (const HeddleCudaDType cache_dtype : {dtype, kInt8}) {
      ExpectRight(
          stream,
          {.dtype = dtype, .cache_dtype = cache_dtype, .num_kv_heads = 1, .group_size = 8, .lengths = {40'001}});
    }
  }
}

TEST(CudaDecodeAttention, "takes more sequences than a launch does, and lengths of all kinds beside each other") {
  TestStream stream;
  std::vector<int32_t> lengths(2500);
  std::mt19937_64 bits(5);
  for (int32_t& length : lengths) length = static_cast<int32_t>(bits() % 90);
  lengths[1] = 3000;
  lengths[2] = 0;
  lengths.back() = 2000;
  ExpectRight(stream, {.head_dim = 64, .lengths = lengths});
  ExpectRight(stream, {.cache_dtype = kInt8, .head_dim = 64, .lengths = lengths});
  ExpectRight(stream, {.dtype = kF32, .cache_dtype = kF32, .head_dim = 16, .lengths = lengths});
}

TEST(CudaDecodeAttention, "skips sequences that are padding, wherever they are") {
  TestStream stream;
  for (const HeddleCudaDType dtype : {kF32, kBF16}) {
    ExpectRight(stream, {.dtype = dtype, .cache_dtype = dtype, .lengths = {0, 0, 70, 0, 0, 1, 0}, .max_seq_len = 9000});
    ExpectRight(stream, {.dtype = dtype, .cache_dtype = dtype, .lengths = {0, 0, 0}, .max_seq_len = 100});
  }
}

TEST(CudaDecodeAttention, "lets NaN in a key that is seen through to the output") {
  TestStream stream;
  for (const HeddleCudaDType cache_dtype : kAllCacheDTypes) {
    const HeddleCudaDType dtype = cache_dtype == kInt8 ? kBF16 : cache_dtype;
    const Problem problem(stream, {.dtype = dtype, .cache_dtype = cache_dtype, .lengths = {100, 100}, .soft_cap = 30});
    HeddleCudaPagedAttention op = problem.Op();
    // The second sequence's first block becomes one of those that nothing was written to.
    std::vector<int32_t> table = problem.table();
    table[static_cast<size_t>(op.block_table_stride)] = problem.UnusedBlock();
    const DeviceArray changed = DeviceArray::Ints(stream, table);
    op.block_table = changed.As<int32_t>();
    EXPECT_OK(Api().paged_attention(stream.get(), &op));
    const std::vector<float> out = problem.Output();
    EXPECT_TRUE(!std::isnan(out[0]));
    EXPECT_TRUE(std::isnan(out[static_cast<size_t>(op.out.stride)]));
  }
}

TEST(CudaDecodeAttention, "gives the same bits every time") {
  TestStream stream;
  for (const HeddleCudaDType cache_dtype : kAllCacheDTypes) {
    const HeddleCudaDType dtype = cache_dtype == kInt8 ? kBF16 : cache_dtype;
    const Shape shape = {.dtype = dtype, .cache_dtype = cache_dtype, .lengths = {17, 1, 1000, 5000, 64, 255}};
    const Problem problem(stream, shape);
    const auto run = [&] { return RowsOf(problem.Run(stream), shape.num_seqs(), shape.size(), shape.stride()); };
    const std::vector<float> first = run();
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(run() == first);
  }
}

TEST(CudaDecodeAttention, "in a graph takes the lengths of the moment") {
  TestStream stream;
  for (const HeddleCudaDType cache_dtype : {kF32, kBF16, kInt8}) {
    const HeddleCudaDType dtype = cache_dtype == kInt8 ? kBF16 : cache_dtype;
    Problem problem(stream, {.dtype = dtype, .cache_dtype = cache_dtype});
    const HeddleCudaPagedAttention op = problem.Op();
    HeddleCudaGraph* graph = nullptr;
    EXPECT_OK(Api().capture_begin(stream.get()));
    EXPECT_OK(Api().paged_attention(stream.get(), &op));
    EXPECT_OK(Api().capture_end(stream.get(), &graph));
    const std::vector<std::vector<int32_t>> lengths = {kMixedLengths,
                                                       {17, 0, 999, 0, 3, 4000, 1, 200, 0, 1},
                                                       {1, 1, 1, 0, 1, 1, 1, 1, 1, 1},
                                                       {0, 0, 0, 0, 0, 5000, 0, 0, 0, 0}};
    for (const std::vector<int32_t>& each : lengths) {
      problem.SetLengths(stream, each);
      EXPECT_OK(Api().graph_launch(stream.get(), graph));
      problem.Check(problem.Output());
    }
    EXPECT_OK(Api().graph_destroy(graph));
  }
}

// Every op's output is the next one's query. A kernel that read it too early, or wrote scratch memory that the one
// before it still reads, would give other bits than when each op waits.
TEST(CudaDecodeAttention, "follows itself in a graph as if each op waited") {
  TestStream stream;
  for (const HeddleCudaDType cache_dtype : {kF32, kBF16, kInt8}) {
    const HeddleCudaDType dtype = cache_dtype == kInt8 ? kBF16 : cache_dtype;
    const Shape shape = {.dtype = dtype, .cache_dtype = cache_dtype, .lengths = {17, 1000, 300, 64, 2}};
    const Problem problem(stream, shape);
    const HeddleCudaPagedAttention forth = problem.Op();
    HeddleCudaPagedAttention back = forth;
    std::swap(back.q, back.out);
    const auto launch = [&](int i) { EXPECT_OK(Api().paged_attention(stream.get(), i % 2 == 0 ? &forth : &back)); };
    const auto result = [&] { return RowsOf(problem.Output(), shape.num_seqs(), shape.size(), shape.stride()); };
    constexpr int kOps = 41;
    for (int i = 0; i < kOps; ++i) {
      launch(i);
      stream.Synchronize();
    }
    const std::vector<float> expected = result();

    HeddleCudaGraph* graph = nullptr;
    EXPECT_OK(Api().capture_begin(stream.get()));
    for (int i = 0; i < kOps; ++i) launch(i);
    EXPECT_OK(Api().capture_end(stream.get(), &graph));
    for (int i = 0; i < 5; ++i) {
      problem.ResetQueries(stream);
      EXPECT_OK(Api().graph_launch(stream.get(), graph));
      EXPECT_TRUE(result() == expected);
    }
    EXPECT_OK(Api().graph_destroy(graph));
  }
}

TEST(CudaDecodeAttention, "does nothing without sequences or tokens") {
  TestStream stream;
  const Problem problem(stream, {.lengths = {5}});
  HeddleCudaPagedAttention op = problem.Op();
  op.num_seqs = 0;
  op.q.num_rows = op.out.num_rows = 0;
  EXPECT_OK(Api().paged_attention(stream.get(), &op));
  op = problem.Op();
  op.max_seq_len = 0;
  EXPECT_OK(Api().paged_attention(stream.get(), &op));
  for (const float value : problem.Output()) EXPECT_TRUE(std::isnan(value));
}

TEST(CudaDecodeAttention, "refuses what it cannot take") {
  TestStream stream;
  const Problem problem(stream, {.lengths = {5, 9}});
  const auto expect_refused = [&](auto&& change) {
    HeddleCudaPagedAttention op = problem.Op();
    change(op);
    EXPECT_STATUS(Api().paged_attention(stream.get(), &op), kHeddleCudaInvalid);
  };
  expect_refused([](auto& op) { op.num_heads = 7; });
  expect_refused([](auto& op) { op.num_heads = 0; });
  expect_refused([](auto& op) { op.q.size -= 8; });
  expect_refused([](auto& op) { op.out.dtype = kF32; });
  expect_refused([](auto& op) { op.q.num_rows = op.out.num_rows = 1; });
  expect_refused([](auto& op) { op.q.num_rows = 3; });
  expect_refused([](auto& op) { op.q.stride += 1; });
  expect_refused([](auto& op) { op.cache.block_size = 48; });
  expect_refused([](auto& op) { op.cache.head_dim = 127; });
  expect_refused([](auto& op) { op.cache.num_kv_heads = 0; });
  expect_refused([](auto& op) { op.cache.keys = nullptr; });
  expect_refused([](auto& op) { op.seq_lens = nullptr; });
  expect_refused([](auto& op) { op.block_table = nullptr; });
  expect_refused([](auto& op) { op.block_table_stride = 0; });
  expect_refused([](auto& op) { op.max_seq_len = -1; });
  expect_refused([](auto& op) { op.sliding_window = -1; });
  expect_refused([](auto& op) { op.soft_cap = -1; });
}

}  // namespace
}  // namespace heddle::test::decode
