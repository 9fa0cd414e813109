#include "device/cuda_stream.h"

#include <thread>

#include "fake_cuda.h"
#include "test.h"

namespace heddle {
namespace {

using std::chrono::milliseconds;
using test::FakeCuda;
using test::FakeState;
using test::TheFakeCuda;

constexpr int64_t kWorkspaceBytes = 1 << 20;

int64_t BlocksOf(const FakeCuda& fake) { return fake.num_blocks + fake.num_pinned_blocks; }

// A stream with an event that its device does not reach.
struct Stalled {
  explicit Stalled(WaitLimits limits) : stream(0, kWorkspaceBytes, std::move(limits)), event(stream.CreateEvent()) {
    fake.devices[0].state = FakeState::kStalled;
    event.Record();
  }
  ~Stalled() { fake.devices[0].state = FakeState::kRunning; }
  Stalled(const Stalled&) = delete;
  Stalled& operator=(const Stalled&) = delete;

  FakeCuda& fake = TheFakeCuda();
  CudaStream stream;
  CudaEvent event;
};

TEST(CudaStream, "is waited for no longer than its limit") {
  Stalled stalled({.timeout = milliseconds(30)});
  EXPECT_ERROR(ErrorCode::kCommTimeout, stalled.event.Wait());
  EXPECT_ERROR(ErrorCode::kCommTimeout, stalled.stream.Synchronize());
}

TEST(CudaStream, "is waited for until that is cancelled") {
  std::atomic<bool> cancelled{false};
  Stalled stalled({.cancelled = &cancelled});
  std::thread canceller([&] {
    std::this_thread::sleep_for(milliseconds(30));
    cancelled = true;
  });
  EXPECT_ERROR(ErrorCode::kCancelled, stalled.event.Wait());
  canceller.join();
  EXPECT_ERROR(ErrorCode::kCancelled, stalled.stream.Synchronize());
}

TEST(CudaStream, "is waited for until a check says that it is in vain") {
  Stalled stalled({.check = [] { throw Error(ErrorCode::kRankFailed, "a peer is gone"); }});
  EXPECT_ERROR(ErrorCode::kRankFailed, stalled.event.Wait());
  EXPECT_ERROR(ErrorCode::kRankFailed, stalled.stream.Synchronize());
}

TEST(CudaStream, "is waited for until the waiter's own check says so, which is asked before the stream's") {
  Stalled stalled({.check = [] { throw Error(ErrorCode::kRankFailed, "a peer is gone"); }});
  EXPECT_ERROR(ErrorCode::kInternal,
               stalled.event.Wait([] { throw Error(ErrorCode::kInternal, "this peer is gone"); }));
}

TEST(CudaStream, "is asked once more before a wait is given up, as the whole process may have been stopped") {
  Stalled stalled({.timeout = milliseconds(30)});
  stalled.event.Wait([&] {
    std::this_thread::sleep_for(milliseconds(100));
    stalled.fake.devices[0].state = FakeState::kRunning;
  });
}

TEST(CudaStream, "asks no check where the device is there already") {
  TheFakeCuda();
  CudaStream stream(0, kWorkspaceBytes, {.check = [] { throw Error(ErrorCode::kRankFailed, "a peer is gone"); }});
  CudaEvent event = stream.CreateEvent();
  event.Wait();  // never recorded
  event.Record();
  event.Wait();
  stream.Synchronize();
}

TEST(CudaStream, "tells of a lost device, without waiting and in a wait") {
  Stalled stalled({});
  stalled.event.CheckDevice();
  stalled.fake.devices[0].state = FakeState::kLost;
  EXPECT_ERROR(ErrorCode::kRankFailed, stalled.event.CheckDevice());
  EXPECT_ERROR(ErrorCode::kRankFailed, stalled.event.Wait());
}

TEST(CudaStream, "is drained to the end though all is cancelled, and then gives back what it gave") {
  FakeCuda& fake = TheFakeCuda();
  const int64_t blocks_before = BlocksOf(fake);
  const int64_t streams_before = fake.num_streams;
  {
    const std::atomic<bool> cancelled{true};
    CudaStream stream(0, kWorkspaceBytes, {.cancelled = &cancelled});
    const auto memory = stream.Allocate(16);
    const auto pinned = stream.AllocatePinned(16);
    fake.devices[0].state = FakeState::kStalled;
    std::atomic<bool> is_done{false};
    std::thread device([&] {
      std::this_thread::sleep_for(milliseconds(60));
      is_done = true;
      fake.devices[0].state = FakeState::kRunning;
    });
    stream.Drain();
    EXPECT_TRUE(is_done);
    device.join();
    EXPECT_EQ(BlocksOf(fake) - blocks_before, 2);
  }
  EXPECT_EQ(BlocksOf(fake), blocks_before);
  EXPECT_EQ(fake.num_streams.load(), streams_before);
}

TEST(CudaStream, "leaves a device that does not end its work what it gave it") {
  FakeCuda& fake = TheFakeCuda();
  const int64_t blocks_before = BlocksOf(fake);
  const int64_t streams_before = fake.num_streams;
  {
    CudaStream stream(0, kWorkspaceBytes, {.timeout = milliseconds(30)});
    const auto memory = stream.Allocate(16);
    const auto pinned = stream.AllocatePinned(16);
    fake.devices[0].state = FakeState::kStalled;
    stream.Drain();
  }
  EXPECT_EQ(BlocksOf(fake) - blocks_before, 2);
  EXPECT_EQ(fake.num_streams - streams_before, 1);
  fake.devices[0].state = FakeState::kRunning;
}

}  // namespace
}  // namespace heddle
