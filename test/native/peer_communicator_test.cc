// Small sums through peer memory, the rest through NCCL: ranks are threads that take the GPUs in turn, so one suffices.
#include "comm/peer_communicator.h"

#include <chrono>
#include <cstdlib>
#include <functional>
#include <thread>

#include "comm/nccl_communicator.h"
#include "fake_cuda.h"
#include "rank_threads.h"
#include "tensor_testing.h"

namespace heddle {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::Random;
using Clock = std::chrono::steady_clock;

// What ranks on one device need, read when CUDA and NCCL are used for the first time.
[[maybe_unused]] const bool kRanksShareDevice = setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0) == 0 &&
                                                setenv("CUDA_MODULE_LOADING", "EAGER", 0) == 0 &&
                                                setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0) == 0;

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;
constexpr int64_t kHidden = 1000;
constexpr milliseconds kTimeout{20'000};

// A number of one rank: a small integer, so that every type here holds every sum of them.
float Value(int rank, int64_t i, uint64_t seed) {
  Random random(seed * 64 + static_cast<uint64_t>(rank) + static_cast<uint64_t>(i) * 1000003);
  return static_cast<float>(random.Below(17) - 8);
}

float SumOverRanks(int size, int64_t i, uint64_t seed) {
  float sum = 0;
  for (int rank = 0; rank < size; ++rank) sum += Value(rank, i, seed);
  return sum;
}

// A tensor on a device, with page-locked memory for its contents.
class DeviceTensor {
 public:
  DeviceTensor(CudaStream& cuda, DType dtype, const Shape& shape)
      : cuda_(cuda),
        bytes_(static_cast<size_t>(shape.NumElements()) * DTypeSize(dtype)),
        host_(cuda.AllocatePinned(bytes_)),
        tensor_(dtype, shape, cuda) {}

  operator const TensorView&() const { return tensor_.view(); }  // NOLINT: usable wherever a view is
  int64_t size() const { return tensor_.view().shape.NumElements(); }

  // In the stream's order; `host` is free again after a wait.
  void Put(const std::function<float(int64_t)>& element) const {
    for (int64_t i = 0; i < size(); ++i) StoreFloat(tensor_.view().dtype, host_.get(), i, element(i));
    cuda_.Copy(tensor_.view().data, host_.get(), bytes_);
  }
  void PutValues(int rank, uint64_t seed) const {
    Put([&](int64_t i) { return Value(rank, i, seed); });
  }

  // Waits. How many elements are further than `tolerance` from what is expected.
  int64_t CountWrong(const std::function<double(int64_t)>& expected, double tolerance = 0) const {
    cuda_.Copy(host_.get(), tensor_.view().data, bytes_);
    cuda_.Synchronize();
    int64_t wrong = 0;
    for (int64_t i = 0; i < size(); ++i) {
      const double value = LoadFloat(tensor_.view().dtype, host_.get(), i);
      wrong += !(std::abs(value - expected(i)) <= tolerance);
    }
    return wrong;
  }
  int64_t CountWrongSums(int num_ranks, uint64_t seed) const {
    return CountWrong([&](int64_t i) { return SumOverRanks(num_ranks, i, seed); });
  }

 private:
  CudaStream& cuda_;
  const size_t bytes_;
  const std::shared_ptr<void> host_;
  const Tensor tensor_;
};

// The ranks of one group, connected.
class Ranks {
 public:
  explicit Ranks(int size, milliseconds timeout = kTimeout) {
    test::RequireGpu();
    const int num_devices = NumCudaDevices();
    for (int rank = 0; rank < size; ++rank) devices_.push_back(rank % num_devices);
    group_ = CreatePeerGroup(CreateNcclGroup(devices_, NcclOptions{}, timeout), timeout);
    streams_.resize(group_.size());
    Run([&](int rank) {
      const auto i = static_cast<size_t>(rank);
      streams_[i] = std::make_unique<Stream>(
          1, true, CpuIsa::kScalar,
          std::make_unique<CudaStream>(devices_[i], kWorkspaceBytes, WaitLimits{.timeout = kTimeout}));
      group_[i]->Connect(*streams_[i]);
    });
  }
  // Nobody waits for anybody here.
  ~Ranks() { Abort(ErrorCode::kCancelled); }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int size() const { return static_cast<int>(group_.size()); }
  Communicator& communicator(int rank) const { return *group_[static_cast<size_t>(rank)]; }
  CudaStream& cuda(int rank) const { return *streams_[static_cast<size_t>(rank)]->cuda(); }
  int64_t max_bytes() const { return MaxPeerMessageBytes(size()); }

  void Abort(ErrorCode code) const {
    for (const auto& communicator : group_) communicator->Abort(code);
  }

  // body(rank) on a thread for each rank. What the first throws comes out here.
  void Run(const std::function<void(int)>& body) const {
    test::RunOnRanks(size(), body, [this] { Abort(ErrorCode::kRankFailed); });
  }

 private:
  std::vector<int32_t> devices_;
  std::vector<std::unique_ptr<Stream>> streams_;  // outlives the communicators
  std::vector<std::unique_ptr<Communicator>> group_;
};

// Sums and their norms as a decoder has them. Rows are tokens.
struct Branch {
  Branch(CudaStream& cuda, DType dtype, int64_t rows)
      : x(cuda, dtype, {rows, kHidden}),
        residual(cuda, DType::kFloat32, {rows, kHidden}),
        weight(cuda, DType::kFloat32, {kHidden}) {
    weight.Put([](int64_t i) { return Weight(i); });
  }

  static float Weight(int64_t i) { return 1 + static_cast<float>(i % 7); }
  static float Residual(int64_t i) { return static_cast<float>(i % 11); }

  void Put(int rank, uint64_t seed) const {
    x.PutValues(rank, seed);
    residual.Put(Residual);
  }

  bool TryAllReduceAddRmsNorm(Communicator& communicator) const {
    return communicator.TryAllReduceAddRmsNorm(x, residual, weight, kEpsilon, x);
  }

  // Of residual and norm together.
  int64_t CountWrong(int num_ranks, uint64_t seed) const {
    const auto sum = [&](int64_t i) { return double{SumOverRanks(num_ranks, i, seed)} + Residual(i); };
    std::vector<double> scales;
    for (int64_t row = 0; row < x.size() / kHidden; ++row) {
      double squares = 0;
      for (int64_t i = row * kHidden; i < (row + 1) * kHidden; ++i) squares += sum(i) * sum(i);
      scales.push_back(1 / std::sqrt(squares / kHidden + kEpsilon));
    }
    const auto norm = [&](int64_t i) {
      return sum(i) * scales[static_cast<size_t>(i / kHidden)] * Weight(i % kHidden);
    };
    return residual.CountWrong(sum) + x.CountWrong(norm, kLargestNorm / 256);
  }

  static constexpr float kEpsilon = 1e-5f;
  static constexpr double kLargestNorm = 32;

  DeviceTensor x;
  DeviceTensor residual;
  DeviceTensor weight;
};

TEST(PeerCommunicator, "sums messages below and above the limit, in turns, the same on every rank") {
  for (const int size : {2, 4}) {
    const Ranks ranks(size);
    std::atomic<int64_t> num_wrong{0};
    ranks.Run([&](int rank) {
      Random sizes(7);
      for (uint64_t round = 0; round < 40; ++round) {
        const DType dtype = round % 3 == 0 ? DType::kFloat32 : round % 3 == 1 ? DType::kBFloat16 : DType::kFloat16;
        const int64_t limit = ranks.max_bytes() / static_cast<int64_t>(DTypeSize(dtype));
        // At the limit and one beyond it, among sizes around it.
        const int64_t count = round < 6 ? limit + static_cast<int64_t>(round / 3) : 1 + sizes.Below(limit * 3 / 2);
        const DeviceTensor x(ranks.cuda(rank), dtype, {1, count});
        x.PutValues(rank, round);
        ranks.communicator(rank).AllReduceSum(x);
        num_wrong += x.CountWrongSums(size, round);
      }
      ranks.communicator(rank).CheckHealth();
    });
    EXPECT_EQ(num_wrong.load(), 0);
  }
}

TEST(PeerCommunicator, "adds sums to the residual and norms it in one, up to the limit") {
  for (const int size : {2, 4}) {
    const Ranks ranks(size);
    std::atomic<int64_t> num_wrong{0};
    ranks.Run([&](int rank) {
      for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
        const int64_t most_rows = ranks.max_bytes() / (kHidden * static_cast<int64_t>(DTypeSize(dtype)));
        for (const int64_t rows : {int64_t{1}, int64_t{37}, most_rows, most_rows + 1}) {
          const Branch branch(ranks.cuda(rank), dtype, rows);
          branch.Put(rank, 5);
          const bool done = branch.TryAllReduceAddRmsNorm(ranks.communicator(rank));
          ranks.cuda(rank).Synchronize();
          if (done != (rows <= most_rows)) ++num_wrong;
          if (done) num_wrong += branch.CountWrong(size, 5);
        }
      }
    });
    EXPECT_EQ(num_wrong.load(), 0);
  }
}

TEST(PeerCommunicator, "in a graph sums anew in each of a thousand replays, with NCCL's collectives between its own") {
  constexpr uint64_t kReplays = 1000;
  for (const int size : {2, 4}) {
    const Ranks ranks(size);
    std::atomic<int64_t> num_wrong{0};
    ranks.Run([&](int rank) {
      Communicator& communicator = ranks.communicator(rank);
      CudaStream& cuda = ranks.cuda(rank);
      const DeviceTensor embedding(cuda, DType::kFloat32, {3, kHidden});
      const Branch first(cuda, DType::kBFloat16, 3);
      const Branch second(cuda, DType::kBFloat16, 3);
      const DeviceTensor large(cuda, DType::kFloat32, {1, ranks.max_bytes() / 4 + 1});
      const DeviceTensor part(cuda, DType::kFloat32, {3, 10});
      const DeviceTensor gathered(cuda, DType::kFloat32, {3, 10 * size});
      const auto launch = [&] {
        communicator.AllReduceSum(embedding);
        if (!first.TryAllReduceAddRmsNorm(communicator)) ++num_wrong;
        communicator.AllReduceSum(large);
        if (!second.TryAllReduceAddRmsNorm(communicator)) ++num_wrong;
        communicator.GatherColumns(part, 0, gathered);
      };
      const auto put = [&](uint64_t seed) {
        embedding.PutValues(rank, seed);
        first.Put(rank, seed + 1);
        second.Put(rank, seed + 2);
        part.PutValues(rank, seed + 3);
      };
      put(0);
      launch();
      communicator.Quiesce();
      const CudaGraph graph = cuda.Capture(launch);
      communicator.Quiesce();
      for (uint64_t replay = 0; replay < kReplays; ++replay) {
        const bool is_checked = replay % 10 == 9;
        if (is_checked) {
          cuda.Synchronize();
          put(replay);
          large.PutValues(rank, replay + 4);
        }
        cuda.Launch(graph);
        if (!is_checked) continue;
        num_wrong += embedding.CountWrongSums(size, replay) + first.CountWrong(size, replay + 1) +
                     second.CountWrong(size, replay + 2);
        if (replay % 100 == 99) num_wrong += large.CountWrongSums(size, replay + 4);
        if (rank == 0) {
          num_wrong += gathered.CountWrong([&](int64_t i) {
            const int64_t column = i % (10 * size);
            return Value(static_cast<int>(column / 10), i / (10 * size) * 10 + column % 10, replay + 3);
          });
        }
      }
      communicator.CheckHealth();
    });
    EXPECT_EQ(num_wrong.load(), 0);
  }
}

TEST(PeerCommunicator, "ends at the deadline where a rank does not come, and says so") {
  const Ranks ranks(2, milliseconds(500));
  const DeviceTensor x(ranks.cuda(0), DType::kFloat32, {1, 8});
  CudaStream& cuda = ranks.cuda(0);
  // Captured by rank 0 alone, and so without meeting rank 1 on the host.
  const CudaGraph graph = cuda.Capture([&] { ranks.communicator(0).AllReduceSum(x); });
  const Clock::time_point start = Clock::now();
  cuda.Launch(graph);
  cuda.Synchronize();
  EXPECT_TRUE(Clock::now() - start >= milliseconds(450) && Clock::now() - start < seconds(2));
  EXPECT_ERROR(ErrorCode::kCommTimeout, ranks.communicator(0).CheckHealth());
  EXPECT_ERROR(ErrorCode::kCommTimeout, ranks.communicator(1).CheckHealth());
}

TEST(PeerCommunicator, "an abort by another thread ends a replay's wait for a missing rank, and all that follows") {
  const Ranks ranks(2);
  const DeviceTensor x(ranks.cuda(0), DType::kFloat32, {1, 8});
  CudaStream& cuda = ranks.cuda(0);
  const CudaGraph graph = cuda.Capture([&] {
    for (int i = 0; i < 64; ++i) ranks.communicator(0).AllReduceSum(x);
  });
  cuda.Launch(graph);
  std::thread aborter([&] {
    std::this_thread::sleep_for(milliseconds(300));
    ranks.Abort(ErrorCode::kCancelled);
  });
  const Clock::time_point start = Clock::now();
  cuda.Synchronize();
  const auto waited = Clock::now() - start;
  aborter.join();
  EXPECT_TRUE(waited >= milliseconds(250) && waited < milliseconds(600));
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_ERROR(ErrorCode::kCancelled, ranks.communicator(rank).CheckHealth());
    EXPECT_ERROR(ErrorCode::kCancelled, ranks.communicator(rank).AllReduceSum(x));
  }
}

}  // namespace
}  // namespace heddle
