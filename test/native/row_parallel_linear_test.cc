// Row-parallel products that flow into the residual stream.
#include <functional>
#include <thread>

#include "comm/local_communicator.h"
#include "layers/linear.h"
#include "tensor_testing.h"

namespace heddle {
namespace {

using test::Random;
using test::SameBits;
using test::TestTensor;

constexpr int64_t kTokens = 3;
constexpr int64_t kColumns = 96;
constexpr int64_t kRows = 40;
constexpr float kEpsilon = 1e-5f;

// One rank's layer with random weights, and what goes into it.
struct Rank {
  Rank(Communicator& communicator, bool bias) : tp{communicator.rank(), communicator.size(), &communicator} {
    layer = std::make_unique<RowParallelLinear>(context, StoredMatrix::Whole("layer", kRows, kColumns, bias), 16);
    Random random(static_cast<uint64_t>(tp.rank) + 1);
    x.Fill(random);
    Random alike(77);
    residual.Fill(alike);
    weight.Fill(alike);
  }

  TensorView weight_view() const { return {weight.view().data, DType::kFloat32, {kRows}}; }
  ResidualNorm next() const { return {residual, weight_view(), kEpsilon}; }

  TensorParallel tp;
  std::unique_ptr<WeightSource> weights = DummyWeights(DType::kFloat32);
  HostSlab memory;
  Stream stream{1, true, CpuIsa::kScalar};
  std::function<void(int64_t)> on_packed = [](int64_t) {};
  std::atomic<bool> cancelled{false};
  WeightFormats formats{DType::kFloat32};
  BuildContext context{tp, *weights, nullptr, nullptr, formats, memory, stream, on_packed, cancelled};
  std::unique_ptr<RowParallelLinear> layer;
  TestTensor x{DType::kFloat32, {kTokens, tp.Shard(kColumns, 16).size()}};
  TestTensor residual{DType::kFloat32, {kTokens, kRows}};
  TestTensor weight{DType::kFloat32, {1, kRows}};
  TestTensor y{DType::kFloat32, {kTokens, kRows}};
};

// Notes what it is asked for, and does nothing.
class FusingCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void AllReduceSum(const TensorView&) override { ++num_sums; }
  bool TryAllReduceAddRmsNorm(const TensorView& x, const TensorView& residual, const TensorView& weight, float epsilon,
                              const TensorView& y) override {
    ++num_fused;
    operands = {x.data, residual.data, weight.data, y.data};
    given_epsilon = epsilon;
    return true;
  }
  void GatherColumns(const TensorView&, int, const TensorView&) override {}
  void Barrier() override {}
  void Abort(ErrorCode) override {}

  int num_sums = 0;
  int num_fused = 0;
  std::vector<void*> operands;
  float given_epsilon = 0;
};

TEST(RowParallelLinear,
     "flows into the residual stream as if sum, bias and norm came one after the other, to the bit") {
  for (const bool bias : {false, true}) {
    for (const int size : {1, 2, 4}) {
      const auto group = CreateLocalGroup(size, std::chrono::minutes(1), true);
      std::atomic<int> num_wrong{0};
      std::vector<std::thread> threads;
      for (const auto& communicator : group) {
        threads.emplace_back([&] {
          Rank rank(*communicator, bias);
          const TestTensor residual = rank.residual.DeepCopy();
          const ResidualNorm next = rank.next();
          rank.layer->Forward(rank.stream, rank.x, rank.y, &next);
          const TestTensor y(DType::kFloat32, {kTokens, kRows});
          rank.layer->Forward(rank.stream, rank.x, y);
          ops::AddRmsNorm(rank.stream, y, residual, rank.weight_view(), kEpsilon, y);
          if (!SameBits(rank.y, y) || !SameBits(rank.residual, residual)) ++num_wrong;
        });
      }
      for (std::thread& thread : threads) thread.join();
      EXPECT_EQ(num_wrong.load(), 0);
    }
  }
}

TEST(RowParallelLinear, "leaves sum and norm to a communicator that does both in one") {
  FusingCommunicator communicator;
  const Rank rank(communicator, false);
  const ResidualNorm next = rank.next();
  const TestTensor residual = rank.residual.DeepCopy();
  Stream stream(1, true, CpuIsa::kScalar);
  rank.layer->Forward(stream, rank.x, rank.y, &next);
  EXPECT_EQ(communicator.num_fused, 1);
  EXPECT_EQ(communicator.num_sums, 0);
  EXPECT_TRUE(communicator.operands == (std::vector<void*>{rank.y.view().data, rank.residual.view().data,
                                                           rank.weight.view().data, rank.y.view().data}));
  EXPECT_EQ(communicator.given_epsilon, kEpsilon);
  EXPECT_TRUE(SameBits(rank.residual, residual));
}

TEST(RowParallelLinear, "asks for the sum alone where a bias comes between it and the norm, or no norm follows") {
  FusingCommunicator communicator;
  Stream stream(1, true, CpuIsa::kScalar);
  const Rank biased(communicator, true);
  const ResidualNorm next = biased.next();
  biased.layer->Forward(stream, biased.x, biased.y, &next);
  const Rank plain(communicator, false);
  plain.layer->Forward(stream, plain.x, plain.y);
  EXPECT_EQ(communicator.num_fused, 0);
  EXPECT_EQ(communicator.num_sums, 2);
}

}  // namespace
}  // namespace heddle
