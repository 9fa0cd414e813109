// Ops that begin before the op ahead of them has ended still see all of its results, in a graph as well.
#include <functional>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kBF16 = kHeddleCudaBFloat16;

// A chain in which every op needs what the one before it wrote, many times over, on tensors of one size.
class Chain {
 public:
  Chain(TestStream& stream, int64_t rows, int64_t size)
      : stream_(stream),
        rows_(rows),
        size_(size),
        ids_(DeviceArray::Ints(stream, Spread(rows, kTableRows))),
        order_(DeviceArray::Ints(stream, Spread(rows, rows))),
        table_(DeviceArray::From(stream, kBF16, RandomFloats(static_cast<size_t>(kTableRows * size), 1))),
        weight_(DeviceArray::From(stream, kF32, RandomFloats(static_cast<size_t>(size), 2))),
        residual_(DeviceArray::Poisoned(stream, kF32, static_cast<size_t>(rows * size))),
        x_(DeviceArray::Poisoned(stream, kBF16, static_cast<size_t>(rows * size))),
        y_(DeviceArray::Poisoned(stream, kBF16, static_cast<size_t>(rows * size))) {}

  // after_each() is called behind every op.
  void Run(const std::function<void()>& after_each) {
    const auto check = [&](HeddleCudaStatus status, const char* op) {
      MustSucceed(status, op);
      after_each();
    };
    const HeddleCudaMatrix residual = Matrix(residual_, kF32, rows_, size_);
    const HeddleCudaMatrix x = Matrix(x_, kBF16, rows_, size_);
    const HeddleCudaMatrix y = Matrix(y_, kBF16, rows_, size_);
    const float* weight = weight_.As<float>();
    const HeddleCudaEmbedding embedding = {.ids = ids_.As<int32_t>(),
                                           .table = Matrix(table_, kBF16, kTableRows, size_),
                                           .table_scales = nullptr,
                                           .first_id = 0,
                                           .scale = 3,
                                           .y = residual};
    const HeddleCudaRmsNorm norm = {.x = residual, .num_heads = 1, .weight = weight, .epsilon = 1e-6f, .y = x};
    const HeddleCudaAddBias bias = {.bias = weight, .y = x};
    const HeddleCudaGatherRows gather = {.x = x, .rows = order_.As<int32_t>(), .y = y};
    const HeddleCudaAddRmsNorm add_norm = {.x = y, .residual = residual, .weight = weight, .epsilon = 1e-6f, .y = x};
    const HeddleCudaSoftCap cap = {.cap = 4, .x = residual};
    HeddleCudaStream* stream = stream_.get();
    check(Api().embedding(stream, &embedding), "embedding");
    check(Api().rms_norm(stream, &norm), "rms_norm");
    for (int i = 0; i < 30; ++i) {
      check(Api().add_bias(stream, &bias), "add_bias");
      check(Api().gather_rows(stream, &gather), "gather_rows");
      check(Api().add_rms_norm(stream, &add_norm), "add_rms_norm");
      check(Api().soft_cap(stream, &cap), "soft_cap");
      check(Api().rms_norm(stream, &norm), "rms_norm");
    }
  }

  std::vector<float> Result() const { return residual_.ToHost(); }

 private:
  static constexpr int64_t kTableRows = 97;

  static std::vector<int32_t> Spread(int64_t count, int64_t range) {
    std::vector<int32_t> numbers;
    for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<int32_t>((i * 61 + 13) % range));
    return numbers;
  }

  TestStream& stream_;
  int64_t rows_, size_;
  DeviceArray ids_, order_, table_, weight_, residual_, x_, y_;
};

TEST(CudaOrdering, "of a chain of ops is that of the calls, and a graph of it gives the same bits") {
  TestStream stream;
  for (int64_t rows : {1, 3, 64, 1000}) {
    for (int64_t size : {64, 896, 4096}) {
      Chain chain(stream, rows, size);
      chain.Run([&] { stream.Synchronize(); });
      const std::vector<float> expected = chain.Result();
      for (int round = 0; round < 3; ++round) {
        chain.Run([] {});
        EXPECT_TRUE(chain.Result() == expected);
      }
      HeddleCudaGraph* graph = nullptr;
      EXPECT_OK(Api().capture_begin(stream.get()));
      chain.Run([] {});
      EXPECT_OK(Api().capture_end(stream.get(), &graph));
      for (int round = 0; round < 3; ++round) {
        EXPECT_OK(Api().graph_launch(stream.get(), graph));
        EXPECT_TRUE(chain.Result() == expected);
      }
      EXPECT_OK(Api().graph_destroy(graph));
    }
  }
}

TEST(CudaOrdering, "holds for weights that an op fills just before they are used") {
  TestStream stream;
  constexpr int64_t kSize = 4096;
  const DeviceArray x = DeviceArray::From(stream, kF32, RandomFloats(kSize, 3));
  const DeviceArray weight = DeviceArray::Poisoned(stream, kF32, kSize);
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, kSize);
  const HeddleCudaRmsNorm op = {.x = Matrix(x, kF32, 1, kSize),
                                .num_heads = 1,
                                .weight = weight.As<float>(),
                                .epsilon = 1e-6f,
                                .y = Matrix(y, kF32, 1, kSize)};
  std::vector<std::vector<float>> waited;
  for (bool wait : {true, false}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      EXPECT_OK(Api().fill_random(stream.get(), Matrix(weight, kF32, 1, kSize), seed, 1));
      if (wait) stream.Synchronize();
      EXPECT_OK(Api().rms_norm(stream.get(), &op));
      if (wait) {
        waited.push_back(y.ToHost());
      } else {
        EXPECT_TRUE(y.ToHost() == waited[seed]);
      }
    }
  }
}

}  // namespace
}  // namespace heddle::test
