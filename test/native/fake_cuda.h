// A stand-in for libheddle_cuda.so on machines without a GPU: two devices whose memory is the host's, whose ops run
// when they are launched, and which are late, stop or break when a test says so. It lies beside the tests' binary,
// where the core looks for the library unless HEDDLE_CUDA_LIBRARY names another.
//
// It has what the host's side of a GPU's rank needs: memory, events, graphs, one sampler (the largest logit, or what a
// row's seed says) and collectives that do nothing, in communicators that fail once any device is lost. The entries of
// all other ops are null.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace heddle::test {

inline constexpr int kNumFakeDevices = 2;

enum class FakeState {
  kRunning,
  kStalled,  // events that are recorded from now on are not reached, until it runs again
  kLost,     // every call on the device fails
};

struct FakeDevice {
  std::atomic<FakeState> state{FakeState::kRunning};
};

struct FakeCuda {
  std::atomic<bool> serves_models{false};  // else engines take the CPU
  std::atomic<bool> has_bitsandbytes{false};
  // Streams, each used by one thread, run what is launched as late as they may: when it is waited for, what it works on
  // is given back, or memory is to be read that is not page-locked.
  std::atomic<bool> is_late{false};
  std::array<FakeDevice, kNumFakeDevices> devices;
  std::atomic<int64_t> num_streams{0};  // that exist
  std::atomic<int64_t> num_blocks{0};   // of device memory that exist
  std::atomic<int64_t> num_pinned_blocks{0};
  std::atomic<int64_t> num_communicators{0};  // that exist, as the next
  std::atomic<int64_t> num_peer_groups{0};
  std::atomic<int64_t> num_graphs{0};  // that exist
};

// The fake, all devices running; skips the test where the core has opened another library.
FakeCuda& TheFakeCuda();

// Skips the test unless the core has opened a library with a GPU, or with a fake of one.
void RequireDevice();
// Skips it for a fake too.
void RequireGpu();

}  // namespace heddle::test
