// All-reduce through peer memory among ranks that are threads of this process on one device.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include "ranks.h"

namespace heddle::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kMaxBytes = 256 << 10;
constexpr int64_t kTimeoutUs = 30'000'000;

size_t BytesOf(HeddleCudaDType dtype) { return dtype == kHeddleCudaFloat32 ? 4 : 2; }

class PeerRanks : public Ranks {
 public:
  explicit PeerRanks(int size, int64_t timeout_us = kTimeoutUs, int64_t max_bytes = kMaxBytes) : Ranks(size) {
    std::vector<HeddleCudaStream*> streams;
    for (int rank = 0; rank < size; ++rank) streams.push_back(stream(rank).get());
    MustSucceed(Api().peer_group_create(streams.data(), size, max_bytes, timeout_us, &group_), "peer_group_create");
  }

  ~PeerRanks() override {
    for (int rank = 0; rank < size(); ++rank) stream(rank).Synchronize();
    EXPECT_OK(Api().peer_group_destroy(group_));
  }

  HeddleCudaPeerGroup* group() const { return group_; }

  void AllReduce(int rank, const HeddleCudaMatrix& x) const {
    MustSucceed(Api().one_shot_all_reduce_sum(stream(rank).get(), group_, rank, x), "one_shot_all_reduce_sum");
  }

 private:
  void BreakGroup() override { Api().peer_group_abort(group_); }

  HeddleCudaPeerGroup* group_ = nullptr;
};

// The same numbers, and zeros of the same sign.
bool SameNumbers(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return x == y && std::signbit(x) == std::signbit(y); });
}

TEST(OneShotAllReduce, "sums in tree order, bit for bit, on every rank, whatever the size, time after time") {
  constexpr size_t kGuards = 9;
  for (int size : {2, 4, 8}) {
    PeerRanks ranks(size);
    for (HeddleCudaDType dtype : kAllDTypes) {
      const size_t most = kMaxBytes / BytesOf(dtype);
      uint64_t seed = 1;
      for (size_t count : {size_t{1}, size_t{7}, size_t{8}, size_t{4099}, most, size_t{12}, most - 3}) {
        RankValues values = RandomRankValues(size, dtype, count, seed++);
        for (std::vector<float>& of_rank : values) of_rank[0] = -0.0f;
        const std::vector<float> expected = Rounded(dtype, TreeSum(values));
        RankValues sums(values.size());
        ranks.Run([&](int rank) {
          std::vector<float> guarded = values[static_cast<size_t>(rank)];
          guarded.insert(guarded.end(), kGuards, 3.0f);
          const DeviceArray x = DeviceArray::From(ranks.stream(rank), dtype, guarded);
          ranks.AllReduce(rank, Matrix(x, dtype, 1, static_cast<int64_t>(count)));
          sums[static_cast<size_t>(rank)] = x.ToHost();
        });
        for (std::vector<float>& sum : sums) {
          EXPECT_EQ(std::count(sum.end() - kGuards, sum.end(), 3.0f), static_cast<int64_t>(kGuards));
          sum.resize(count);
          EXPECT_TRUE(SameNumbers(sum, expected));
        }
      }
    }
  }
}

TEST(OneShotAllReduce, "passes on a NaN of all ones, which marks an empty slot") {
  PeerRanks ranks(2);
  for (HeddleCudaDType dtype : kAllDTypes) {
    RankValues sums(2);
    ranks.Run([&](int rank) {
      TestStream& stream = ranks.stream(rank);
      const DeviceArray x = rank == 0 ? DeviceArray::Poisoned(stream, dtype, 100)
                                      : DeviceArray::From(stream, dtype, std::vector<float>(100, 1.0f));
      ranks.AllReduce(rank, Matrix(x, dtype, 1, 100));
      sums[static_cast<size_t>(rank)] = x.ToHost();
    });
    for (const std::vector<float>& sum : sums) {
      EXPECT_TRUE(std::all_of(sum.begin(), sum.end(), [](float x) { return std::isnan(x); }));
    }
  }
}

// One rank's tensors of add_rms_norm, rows with gaps.
struct NormArrays {
  DeviceArray x;
  DeviceArray residual;
  DeviceArray weight;
  DeviceArray y;
  HeddleCudaAddRmsNorm op;
};

struct NormCase {
  HeddleCudaDType dtype;
  int64_t rows;
  int64_t hidden;
  bool in_place = false;

  // Rows begin on 16 bytes.
  int64_t stride() const { return (hidden + 7) / 8 * 8 + 16; }
  size_t count() const { return static_cast<size_t>(rows * stride()); }
  std::vector<float> Residual() const { return RandomFloats(count(), 77); }
  std::vector<float> Weight() const { return RandomFloats(static_cast<size_t>(hidden), 78); }

  NormArrays On(TestStream& stream, const std::vector<float>& x) const {
    NormArrays arrays{DeviceArray::From(stream, dtype, x),
                      DeviceArray::From(stream, kHeddleCudaFloat32, Residual()),
                      DeviceArray::From(stream, kHeddleCudaFloat32, Weight()),
                      DeviceArray::Poisoned(stream, dtype, count()),
                      {}};
    arrays.op.x = Matrix(arrays.x, dtype, rows, hidden, stride());
    arrays.op.residual = Matrix(arrays.residual, kHeddleCudaFloat32, rows, hidden, stride());
    arrays.op.weight = arrays.weight.As<float>();
    arrays.op.epsilon = 1e-5f;
    arrays.op.y = in_place ? arrays.op.x : Matrix(arrays.y, dtype, rows, hidden, stride());
    return arrays;
  }
};

std::vector<double> NormOf(const NormCase& c, const std::vector<float>& residual) {
  const std::vector<float> weight = c.Weight();
  std::vector<double> y;
  for (int64_t row = 0; row < c.rows; ++row) {
    const float* values = residual.data() + row * c.stride();
    double squares = 0;
    for (int64_t i = 0; i < c.hidden; ++i) squares += static_cast<double>(values[i]) * values[i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(c.hidden) + 1e-5);
    for (int64_t i = 0; i < c.hidden; ++i) y.push_back(values[i] * scale * weight[static_cast<size_t>(i)]);
  }
  return y;
}

void ExpectNorm(PeerRanks& ranks, const NormCase& c) {
  const RankValues values = RandomRankValues(ranks.size(), c.dtype, c.count(), static_cast<uint64_t>(c.hidden));
  const std::vector<float> sum = TreeSum(values);
  std::vector<float> residual = c.Residual();
  for (int64_t row = 0; row < c.rows; ++row) {
    for (int64_t i = 0; i < c.hidden; ++i) {
      const auto at = static_cast<size_t>(row * c.stride() + i);
      residual[at] += sum[at];
    }
  }
  RankValues residuals(values.size());
  RankValues ys(values.size());
  ranks.Run([&](int rank) {
    const NormArrays arrays = c.On(ranks.stream(rank), values[static_cast<size_t>(rank)]);
    MustSucceed(Api().one_shot_all_reduce_add_rms_norm(ranks.stream(rank).get(), ranks.group(), rank, &arrays.op),
                "one_shot_all_reduce_add_rms_norm");
    residuals[static_cast<size_t>(rank)] = arrays.residual.ToHost();
    ys[static_cast<size_t>(rank)] = (c.in_place ? arrays.x : arrays.y).ToHost();
  });
  const std::vector<float> first = RowsOf(ys[0], c.rows, c.hidden, c.stride());
  EXPECT_TRUE(RelativeError(first, NormOf(c, residual)) <= Tolerance(c.dtype));
  for (size_t rank = 0; rank < ys.size(); ++rank) {
    // With what lies between the rows.
    EXPECT_TRUE(SameNumbers(residuals[rank], residual));
    EXPECT_TRUE(SameNumbers(RowsOf(ys[rank], c.rows, c.hidden, c.stride()), first));
    EXPECT_TRUE(c.in_place || GapsAreNaN(ys[rank], c.rows, c.hidden, c.stride()));
  }
}

TEST(OneShotAllReduce, "with AddRmsNorm adds the sum over ranks to the residual and normalises it") {
  for (int size : {2, 4, 8}) {
    PeerRanks ranks(size);
    for (HeddleCudaDType dtype : kAllDTypes) {
      ExpectNorm(ranks, {dtype, 1, 1});
      ExpectNorm(ranks, {dtype, 1, 4096});
      ExpectNorm(ranks, {dtype, 3, 100});
      ExpectNorm(ranks, {dtype, 37, 260, true});
      ExpectNorm(ranks, {dtype, 2, 16384});
    }
  }
}

TEST(OneShotAllReduce, "with AddRmsNorm is as one after the other") {
  PeerRanks ranks(4);
  const NormCase c{kHeddleCudaFloat32, 3, 2048};
  const RankValues values = RandomRankValues(4, c.dtype, c.count(), 5);
  ranks.Run([&](int rank) {
    TestStream& stream = ranks.stream(rank);
    const std::vector<float>& x = values[static_cast<size_t>(rank)];
    const NormArrays fused = c.On(stream, x);
    const NormArrays parts = c.On(stream, x);
    MustSucceed(Api().one_shot_all_reduce_add_rms_norm(stream.get(), ranks.group(), rank, &fused.op), "fused");
    ranks.AllReduce(rank, Matrix(parts.x, c.dtype, 1, static_cast<int64_t>(c.count())));
    MustSucceed(Api().add_rms_norm(stream.get(), &parts.op), "add_rms_norm");
    Must(SameNumbers(fused.residual.ToHost(), parts.residual.ToHost()), "another residual");
    const std::vector<float> expected = RowsOf(parts.y.ToHost(), c.rows, c.hidden, c.stride());
    const std::vector<float> actual = RowsOf(fused.y.ToHost(), c.rows, c.hidden, c.stride());
    Must(RelativeError(actual, Doubles(expected)) <= Tolerance(c.dtype), "another y");
  });
}

TEST(OneShotAllReduce, "in a graph on every rank's thread sums anew in each of 100 replays") {
  constexpr int kReplays = 100;
  for (int size : {2, 4, 8}) {
    PeerRanks ranks(size);
    const NormCase c{kHeddleCudaBFloat16, 2, 1000};
    const auto count = static_cast<int64_t>(c.count());
    std::vector<RankValues> values;
    std::vector<std::vector<float>> sums;
    for (uint64_t replay = 0; replay < kReplays; ++replay) {
      values.push_back(RandomRankValues(size, c.dtype, c.count(), 1000 + replay));
      sums.push_back(Rounded(c.dtype, TreeSum(values.back())));
    }
    ranks.Run([&](int rank) {
      TestStream& stream = ranks.stream(rank);
      const NormArrays norm = c.On(stream, values[0][static_cast<size_t>(rank)]);
      const DeviceArray x = DeviceArray::Poisoned(stream, c.dtype, c.count());
      const DeviceArray small = DeviceArray::From(stream, kHeddleCudaFloat32, {static_cast<float>(rank)});
      // Three collectives of different shapes, so that each of them meets both sets of slots.
      TestGraph graph(stream, [&] {
        ranks.AllReduce(rank, Matrix(x, c.dtype, 1, count));
        MustSucceed(Api().one_shot_all_reduce_add_rms_norm(stream.get(), ranks.group(), rank, &norm.op), "fused");
        ranks.AllReduce(rank, Matrix(small, kHeddleCudaFloat32, 1, 1));
      });
      for (size_t replay = 0; replay < kReplays; ++replay) {
        const DeviceArray input = DeviceArray::From(stream, c.dtype, values[replay][static_cast<size_t>(rank)]);
        MustSucceed(Api().copy(stream.get(), x.data(), input.data(), count * 2), "copy");
        graph.Launch();
        Must(SameNumbers(x.ToHost(), sums[replay]), "a replay has another sum");
      }
    });
    EXPECT_OK(Api().peer_group_async_error(ranks.group()));
  }
}

TEST(OneShotAllReduce, "refuses what it has no room for, gaps between rows, and rows off 16 bytes") {
  PeerRanks ranks(2, kTimeoutUs, 1024);
  const DeviceArray x = DeviceArray::Poisoned(ranks.stream(0), kHeddleCudaFloat32, 1024);
  const auto all_reduce = [&](const HeddleCudaMatrix& matrix) {
    return Api().one_shot_all_reduce_sum(ranks.stream(0).get(), ranks.group(), 0, matrix);
  };
  EXPECT_OK(all_reduce(Matrix(x, kHeddleCudaFloat32, 0, 8)));
  EXPECT_STATUS(all_reduce(Matrix(x, kHeddleCudaFloat32, 1, 257)), kHeddleCudaInvalid);
  EXPECT_STATUS(all_reduce(Matrix(x, kHeddleCudaFloat32, 2, 8, 16)), kHeddleCudaInvalid);
  EXPECT_STATUS(all_reduce({x.As<float>() + 1, kHeddleCudaFloat32, 1, 8, 8}), kHeddleCudaInvalid);
  EXPECT_STATUS(
      Api().one_shot_all_reduce_sum(ranks.stream(0).get(), ranks.group(), 2, Matrix(x, kHeddleCudaFloat32, 1, 8)),
      kHeddleCudaInvalid);
  HeddleCudaStream* three[3] = {ranks.stream(0).get(), ranks.stream(1).get(), ranks.stream(1).get()};
  HeddleCudaPeerGroup* group = nullptr;
  EXPECT_STATUS(Api().peer_group_create(three, 3, 1024, kTimeoutUs, &group), kHeddleCudaInvalid);
}

TEST(OneShotAllReduce, "ends a kernel's wait for a missing peer at the deadline, and the group is broken") {
  PeerRanks ranks(2, 500'000);
  const DeviceArray x = DeviceArray::Poisoned(ranks.stream(0), kHeddleCudaFloat32, 8);
  const HeddleCudaMatrix matrix = Matrix(x, kHeddleCudaFloat32, 1, 8);
  const Clock::time_point start = Clock::now();
  ranks.AllReduce(0, matrix);
  EXPECT_OK(Api().peer_group_async_error(ranks.group()));
  ranks.stream(0).Synchronize();
  const auto waited = Clock::now() - start;
  EXPECT_TRUE(waited >= milliseconds(450) && waited < seconds(2));
  EXPECT_STATUS(Api().peer_group_async_error(ranks.group()), kHeddleCudaTimeout);
  EXPECT_STATUS(Api().one_shot_all_reduce_sum(ranks.stream(1).get(), ranks.group(), 1, matrix), kHeddleCudaTimeout);
}

TEST(OneShotAllReduce, "an abort by another thread ends a kernel's wait for a missing peer at once") {
  PeerRanks ranks(2);
  const DeviceArray x = DeviceArray::Poisoned(ranks.stream(0), kHeddleCudaFloat32, 8);
  ranks.AllReduce(0, Matrix(x, kHeddleCudaFloat32, 1, 8));
  std::atomic<bool> ended{false};
  std::thread waiter([&] {
    Api().stream_synchronize(ranks.stream(0).get());
    ended = true;
  });
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE(!ended);
  const Clock::time_point start = Clock::now();
  EXPECT_OK(Api().peer_group_abort(ranks.group()));
  waiter.join();
  EXPECT_TRUE(Clock::now() - start < milliseconds(100));
  EXPECT_STATUS(Api().peer_group_async_error(ranks.group()), kHeddleCudaAborted);
}

}  // namespace
}  // namespace heddle::test
