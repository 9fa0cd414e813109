// Collectives through NCCL among ranks that are threads of this process on one device.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include "ranks.h"

namespace heddle::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kTimeoutUs = 30'000'000;
constexpr int32_t kOldestVersion = 23000;

HeddleCudaNcclOptions Options(int ranks_on_device) {
  return {ranks_on_device, -1, -1, -1, -1, -1, -1, -1, -1, -1, nullptr, nullptr};
}

void RequireNccl() {
  int32_t version = 0;
  const HeddleCudaStatus status = Api().nccl_version(&version);
  if (status == kHeddleCudaUnavailable) SKIP(Api().last_error());
  MustSucceed(status, "nccl_version");
  if (version < kOldestVersion) {
    SKIP("several ranks on one device need NCCL 2.30, and the library is " + std::to_string(version));
  }
}

class NcclRanks : public Ranks {
 public:
  explicit NcclRanks(int size, int64_t timeout_us = kTimeoutUs) : NcclRanks(size, timeout_us, Options(size)) {}

  NcclRanks(int size, int64_t timeout_us, const HeddleCudaNcclOptions& options)
      : Ranks((RequireNccl(), size)), comms_(static_cast<size_t>(size)) {
    char id[128];
    MustSucceed(Api().comm_unique_id(id), "comm_unique_id");
    for (int rank = 0; rank < size; ++rank) {
      HeddleCudaCommunicator*& comm = comms_[static_cast<size_t>(rank)];
      MustSucceed(Api().comm_create(stream(rank).get(), id, size, rank, &options, timeout_us, &comm), "comm_create");
    }
  }

  ~NcclRanks() override {
    try {
      Run([&](int rank) { MustSucceed(Api().comm_destroy(comm(rank)), "comm_destroy"); });
    } catch (const std::exception& error) {
      Fail(__FILE__, __LINE__, error.what());
    }
  }

  NcclRanks& Connect() {
    Run([&](int rank) { MustSucceed(Api().comm_connect(comm(rank)), "comm_connect"); });
    return *this;
  }

  HeddleCudaCommunicator* comm(int rank) const { return comms_[static_cast<size_t>(rank)]; }

  void AllReduce(int rank, const HeddleCudaMatrix& x) const {
    MustSucceed(Api().all_reduce_sum(stream(rank).get(), comm(rank), x), "all_reduce_sum");
  }

 private:
  void BreakGroup() override {
    for (HeddleCudaCommunicator* comm : comms_) Api().comm_abort(comm);
  }

  std::vector<HeddleCudaCommunicator*> comms_;
};

// Without cancellation, so that a relative error says something of every element.
RankValues PositiveRankValues(int size, HeddleCudaDType dtype, size_t count, uint64_t seed) {
  RankValues values = RandomRankValues(size, dtype, count, seed);
  for (std::vector<float>& of_rank : values) {
    for (float& value : of_rank) value = std::abs(value);
  }
  return values;
}

void ExpectSums(NcclRanks& ranks, HeddleCudaDType dtype, int64_t rows, int64_t columns) {
  constexpr size_t kGuards = 9;
  const auto count = static_cast<size_t>(rows * columns);
  const RankValues values = PositiveRankValues(ranks.size(), dtype, count, count);
  RankValues sums(values.size());
  ranks.Run([&](int rank) {
    std::vector<float> guarded = values[static_cast<size_t>(rank)];
    guarded.insert(guarded.end(), kGuards, 3.0f);
    const DeviceArray x = DeviceArray::From(ranks.stream(rank), dtype, guarded);
    ranks.AllReduce(rank, Matrix(x, dtype, rows, columns));
    sums[static_cast<size_t>(rank)] = x.ToHost();
  });
  const std::vector<double> expected = Doubles(TreeSum(values));
  for (std::vector<float>& sum : sums) {
    EXPECT_EQ(std::count(sum.end() - kGuards, sum.end(), 3.0f), static_cast<int64_t>(kGuards));
    sum.resize(count);
    EXPECT_TRUE(RelativeError(sum, expected) <= Tolerance(dtype));
    EXPECT_TRUE(sum == sums[0]);
  }
}

TEST(Nccl, "sums over 2 and over 4 ranks are the host's in every dtype, and the same on every rank") {
  for (int size : {2, 4}) {
    NcclRanks ranks(size);
    ranks.Connect();
    for (HeddleCudaDType dtype : kAllDTypes) {
      ExpectSums(ranks, dtype, 1, 1);
      ExpectSums(ranks, dtype, 3, 7);
      ExpectSums(ranks, dtype, 1, 4096);
      ExpectSums(ranks, dtype, 5, 200003);
    }
  }
}

TEST(Nccl, "sums of nothing are nothing, and rows with gaps are refused") {
  NcclRanks ranks(2);
  ranks.Connect();
  const DeviceArray x = DeviceArray::Poisoned(ranks.stream(0), kHeddleCudaFloat32, 64);
  HeddleCudaStream* stream = ranks.stream(0).get();
  EXPECT_OK(Api().all_reduce_sum(stream, ranks.comm(0), Matrix(x, kHeddleCudaFloat32, 0, 8)));
  EXPECT_STATUS(Api().all_reduce_sum(stream, ranks.comm(0), Matrix(x, kHeddleCudaFloat32, 2, 8, 16)),
                kHeddleCudaInvalid);
}

struct Gather {
  HeddleCudaDType dtype;
  int64_t rows;
  std::vector<int64_t> columns;
  int root;
  int64_t x_gap;
  int64_t out_gap;
};

void ExpectGathered(NcclRanks& ranks, const Gather& gather) {
  const int64_t all_columns = std::accumulate(gather.columns.begin(), gather.columns.end(), int64_t{0});
  const int64_t out_stride = all_columns + gather.out_gap;
  std::vector<float> expected(static_cast<size_t>(gather.rows * all_columns));
  RankValues values;
  int64_t begin = 0;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    const int64_t columns = gather.columns[static_cast<size_t>(rank)];
    const int64_t stride = columns + gather.x_gap;
    values.push_back(Rounded(gather.dtype, RandomFloats(static_cast<size_t>(gather.rows * stride), 5 + begin)));
    for (int64_t row = 0; row < gather.rows; ++row) {
      std::copy_n(values.back().begin() + row * stride, columns, expected.begin() + row * all_columns + begin);
    }
    begin += columns;
  }
  std::vector<float> gathered;
  ranks.Run([&](int rank) {
    TestStream& stream = ranks.stream(rank);
    const int64_t columns = gather.columns[static_cast<size_t>(rank)];
    const DeviceArray x = DeviceArray::From(stream, gather.dtype, values[static_cast<size_t>(rank)]);
    const bool is_root = rank == gather.root;
    const DeviceArray out =
        DeviceArray::Poisoned(stream, gather.dtype, is_root ? static_cast<size_t>(gather.rows * out_stride) : 1);
    HeddleCudaGatherColumns op{
        Matrix(x, gather.dtype, gather.rows, columns, columns + gather.x_gap), gather.root, gather.columns.data(), {}};
    if (is_root) op.out = Matrix(out, gather.dtype, gather.rows, all_columns, out_stride);
    MustSucceed(Api().gather_columns(stream.get(), ranks.comm(rank), &op), "gather_columns");
    if (is_root) gathered = out.ToHost();
    stream.Synchronize();
  });
  EXPECT_TRUE(GapsAreNaN(gathered, gather.rows, all_columns, out_stride));
  EXPECT_TRUE(RowsOf(gathered, gather.rows, all_columns, out_stride) == expected);
}

TEST(Nccl, "columns of uneven ranks gather at any root, from rows with gaps and into such") {
  NcclRanks pair(2);
  pair.Connect();
  for (HeddleCudaDType dtype : kAllDTypes) {
    ExpectGathered(pair, {dtype, 1, {5, 3}, 0, 0, 0});
    ExpectGathered(pair, {dtype, 6, {17, 1000}, 1, 3, 5});
    ExpectGathered(pair, {dtype, 2, {0, 33}, 0, 0, 1});
  }
  // More than one part, and a last part of a single row.
  ExpectGathered(pair, {kHeddleCudaFloat32, 9, {300001, 200000}, 0, 7, 3});
  NcclRanks four(4);
  four.Connect();
  ExpectGathered(four, {kHeddleCudaFloat32, 1, {100, 1, 0, 2049}, 2, 0, 0});
  ExpectGathered(four, {kHeddleCudaBFloat16, 13, {100, 1, 0, 2049}, 3, 2, 2});
}

TEST(Nccl, "a graph on every rank's thread sums and gathers anew in each of 100 replays") {
  constexpr int kReplays = 100;
  constexpr int64_t kCount = 1000;
  for (int size : {2, 4}) {
    NcclRanks ranks(size);
    ranks.Connect();
    const auto value = [](int replay, int64_t i, int rank) {
      return static_cast<float>((replay * 7 + i * 3 + rank * 11) % 101);
    };
    ranks.Run([&](int rank) {
      TestStream& stream = ranks.stream(rank);
      std::vector<float> inputs;
      for (int replay = 0; replay < kReplays; ++replay) {
        for (int64_t i = 0; i < kCount; ++i) inputs.push_back(value(replay, i, rank));
      }
      const DeviceArray all = DeviceArray::From(stream, kHeddleCudaFloat32, inputs);
      const DeviceArray x = DeviceArray::Poisoned(stream, kHeddleCudaFloat32, kCount);
      const DeviceArray out = DeviceArray::Poisoned(stream, kHeddleCudaFloat32, static_cast<size_t>(size * kCount));
      const std::vector<int64_t> columns(static_cast<size_t>(size), kCount);
      const HeddleCudaGatherColumns gather{Matrix(x, kHeddleCudaFloat32, 1, kCount), 0, columns.data(),
                                           Matrix(out, kHeddleCudaFloat32, 1, size * kCount)};
      TestGraph graph(stream, [&] {
        ranks.AllReduce(rank, Matrix(x, kHeddleCudaFloat32, 1, kCount));
        MustSucceed(Api().gather_columns(stream.get(), ranks.comm(rank), &gather), "gather_columns");
      });
      for (int replay = 0; replay < kReplays; ++replay) {
        const float* input = all.As<float>() + replay * kCount;
        MustSucceed(Api().copy(stream.get(), x.data(), input, kCount * int64_t{sizeof(float)}), "copy");
        graph.Launch();
        const std::vector<float> sum = x.ToHost();
        const std::vector<float> gathered = rank == 0 ? out.ToHost() : std::vector<float>();
        for (int64_t i = 0; i < kCount; ++i) {
          float expected = 0;
          for (int peer = 0; peer < size; ++peer) expected += value(replay, i, peer);
          Must(sum[static_cast<size_t>(i)] == expected, "a replay has another sum");
          for (size_t at = static_cast<size_t>(i); at < gathered.size(); at += kCount) {
            Must(gathered[at] == expected, "a replay has gathered something else");
          }
        }
      }
    });
  }
}

TEST(Nccl, "comm_exchange hands each rank's number to all of them") {
  NcclRanks ranks(4);
  ranks.Connect();
  ranks.Run([&](int rank) {
    for (int64_t round = 0; round < 20; ++round) {
      int64_t values[4] = {};
      const int64_t mine = (round << 40) + rank;
      MustSucceed(Api().comm_exchange(ranks.stream(rank).get(), ranks.comm(rank), mine, values), "comm_exchange");
      for (int peer = 0; peer < 4; ++peer) Must(values[peer] == (round << 40) + peer, "another rank's number");
      MustSucceed(Api().barrier(ranks.stream(rank).get(), ranks.comm(rank)), "barrier");
    }
  });
}

// Calls `wait` on another thread and aborts rank 0's communicator meanwhile.
void ExpectAbortEnds(const NcclRanks& ranks, const std::function<HeddleCudaStatus()>& wait) {
  std::atomic<int> status{-1};
  std::thread waiter([&] { status = wait(); });
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(status.load(), -1);
  const Clock::time_point start = Clock::now();
  EXPECT_OK(Api().comm_abort(ranks.comm(0)));
  waiter.join();
  EXPECT_TRUE(Clock::now() - start < seconds(1));
  EXPECT_EQ(status.load(), static_cast<int>(kHeddleCudaAborted));
  EXPECT_STATUS(Api().comm_async_error(ranks.comm(0)), kHeddleCudaAborted);
  EXPECT_OK(Api().comm_abort(ranks.comm(1)));
}

TEST(Nccl, "an abort by another thread ends a rank's wait for a missing peer within a second") {
  NcclRanks ranks(2);
  ranks.Connect();
  ExpectAbortEnds(ranks, [&] { return Api().barrier(ranks.stream(0).get(), ranks.comm(0)); });
  const DeviceArray x = DeviceArray::Poisoned(ranks.stream(0), kHeddleCudaFloat32, 8);
  EXPECT_STATUS(Api().all_reduce_sum(ranks.stream(0).get(), ranks.comm(0), Matrix(x, kHeddleCudaFloat32, 1, 8)),
                kHeddleCudaAborted);
}

TEST(Nccl, "an abort by another thread ends the connecting to a missing peer within a second") {
  NcclRanks ranks(2);
  ExpectAbortEnds(ranks, [&] { return Api().comm_connect(ranks.comm(0)); });
}

TEST(Nccl, "an abort ends a collective on the device, and comm_async_error tells it from one that succeeded") {
  NcclRanks ranks(2);
  ranks.Connect();
  // Only the first collective waits for the peer on the host.
  ranks.Run([&](int rank) {
    const DeviceArray y = DeviceArray::Poisoned(ranks.stream(rank), kHeddleCudaFloat32, 1024);
    ranks.AllReduce(rank, Matrix(y, kHeddleCudaFloat32, 1, 1024));
    ranks.stream(rank).Synchronize();
  });
  const DeviceArray x = DeviceArray::Poisoned(ranks.stream(0), kHeddleCudaFloat32, 1024);
  ranks.AllReduce(0, Matrix(x, kHeddleCudaFloat32, 1, 1024));
  HeddleCudaEvent* event = nullptr;
  EXPECT_OK(Api().event_create(ranks.stream(0).get(), &event));
  EXPECT_OK(Api().event_record(ranks.stream(0).get(), event));
  EXPECT_STATUS(Api().event_wait(event, 300'000), kHeddleCudaTimeout);
  EXPECT_OK(Api().comm_async_error(ranks.comm(0)));
  EXPECT_OK(Api().comm_abort(ranks.comm(0)));
  EXPECT_OK(Api().comm_abort(ranks.comm(1)));
  EXPECT_OK(Api().event_wait(event, 1'000'000));
  EXPECT_STATUS(Api().comm_async_error(ranks.comm(0)), kHeddleCudaAborted);
  EXPECT_OK(Api().event_destroy(event));
}

TEST(Nccl, "a wait for a missing peer ends at the deadline") {
  constexpr seconds kTimeout{5};
  NcclRanks ranks(2, std::chrono::microseconds(kTimeout).count());
  ranks.Connect();
  const Clock::time_point start = Clock::now();
  EXPECT_STATUS(Api().barrier(ranks.stream(0).get(), ranks.comm(0)), kHeddleCudaTimeout);
  const auto waited = Clock::now() - start;
  EXPECT_TRUE(waited >= kTimeout - milliseconds(100) && waited < kTimeout + seconds(1));
  EXPECT_STATUS(Api().comm_async_error(ranks.comm(0)), kHeddleCudaTimeout);
  EXPECT_OK(Api().comm_abort(ranks.comm(1)));
}

TEST(Nccl, "the connecting to a missing peer ends at the deadline") {
  NcclRanks ranks(2, 1'000'000);
  EXPECT_STATUS(Api().comm_connect(ranks.comm(0)), kHeddleCudaTimeout);
}

TEST(Nccl, "options out of range and impossible ranks are refused") {
  RequireNccl();
  TestStream stream(0);
  char id[128];
  EXPECT_OK(Api().comm_unique_id(id));
  const auto create = [&](int size, int rank, const HeddleCudaNcclOptions& options) {
    HeddleCudaCommunicator* comm = nullptr;
    const HeddleCudaStatus status = Api().comm_create(stream.get(), id, size, rank, &options, kTimeoutUs, &comm);
    if (status == kHeddleCudaOk) Api().comm_destroy(comm);
    return status;
  };
  EXPECT_OK(create(2, 0, Options(1)));
  EXPECT_STATUS(create(2, 2, Options(1)), kHeddleCudaInvalid);
  EXPECT_STATUS(create(9, 0, Options(1)), kHeddleCudaInvalid);
  HeddleCudaNcclOptions options = Options(1);
  options.max_ctas = 65;
  EXPECT_STATUS(create(2, 0, options), kHeddleCudaInvalid);
  options.max_ctas = 4;
  options.min_ctas = 5;
  EXPECT_STATUS(create(2, 0, options), kHeddleCudaInvalid);
}

TEST(Nccl, "a communicator takes every option of its own, and sums") {
  HeddleCudaNcclOptions options = Options(2);
  options.min_ctas = 1;
  options.max_ctas = 2;
  options.cga_cluster_size = 0;
  options.nvls_ctas = 1;
  options.cta_policy = 1;
  options.collnet_enable = 0;
  options.traffic_class = 0;
  options.channels_per_net_peer = 1;
  options.nvlink_centric_scheduling = 0;
  options.net_name = "Socket";
  options.comm_name = "two ranks";
  NcclRanks ranks(2, kTimeoutUs, options);
  ranks.Connect();
  ExpectSums(ranks, kHeddleCudaBFloat16, 3, 4096);
}

TEST(Nccl, "the environment is what it was when NCCL was first used") {
  RequireNccl();
  char id[128];
  EXPECT_OK(Api().comm_unique_id(id));
  EXPECT_EQ(setenv("NCCL_OF_THIS_TEST", "1", 1), 0);
  const char* value = "unchanged";
  EXPECT_OK(Api().nccl_environment("NCCL_OF_THIS_TEST", &value));
  EXPECT_TRUE(value == nullptr);
  EXPECT_OK(Api().nccl_environment("NCCL_MULTI_RANK_GPU_ENABLE", &value));
  EXPECT_TRUE(value != nullptr && std::string(value) == std::getenv("NCCL_MULTI_RANK_GPU_ENABLE"));
}

}  // namespace
}  // namespace heddle::test
