// Captures: what they record, what spoils them, what goes on beside them.
#include <future>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr int64_t kTenSeconds = 10'000'000;

// y += bias, which shows how often it ran.
struct Counter {
  explicit Counter(TestStream& stream)
      : bias(DeviceArray::From(stream, kF32, {1, 10, 100})), y(DeviceArray::From(stream, kF32, {0, 0, 0})) {}

  HeddleCudaStatus Run(TestStream& stream) const {
    const HeddleCudaAddBias op = {.bias = bias.As<float>(), .y = Matrix(y, kF32, 1, 3)};
    return Api().add_bias(stream.get(), &op);
  }
  float Count() const { return y.ToHost()[0]; }

  DeviceArray bias;
  DeviceArray y;
};

HeddleCudaStatus RunInvalidOp(TestStream& stream) {
  const HeddleCudaSoftCap op = {.cap = -1, .x = {}};
  return Api().soft_cap(stream.get(), &op);
}

TEST(CudaGraph, "runs what was captured as often as it is launched, and not before") {
  TestStream stream;
  const Counter counter(stream);
  HeddleCudaGraph* graph = nullptr;
  EXPECT_OK(Api().capture_begin(stream.get()));
  for (int i = 0; i < 5; ++i) EXPECT_OK(counter.Run(stream));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  EXPECT_EQ(counter.Count(), 0.0f);
  for (int i = 0; i < 3; ++i) EXPECT_OK(Api().graph_launch(stream.get(), graph));
  EXPECT_EQ(counter.Count(), 15.0f);
  EXPECT_OK(counter.Run(stream));
  EXPECT_OK(Api().graph_launch(stream.get(), graph));
  EXPECT_EQ(counter.Count(), 21.0f);
  EXPECT_OK(Api().graph_destroy(graph));
}

TEST(CudaGraph, "may be empty, and holds copies and fills as well") {
  TestStream stream;
  const DeviceArray from = DeviceArray::From(stream, kF32, {1, 2, 3});
  const DeviceArray to = DeviceArray::Poisoned(stream, kF32, 3);
  HeddleCudaGraph* graph = nullptr;
  EXPECT_OK(Api().capture_begin(stream.get()));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  EXPECT_OK(Api().graph_launch(stream.get(), graph));
  EXPECT_OK(Api().graph_destroy(graph));

  EXPECT_OK(Api().capture_begin(stream.get()));
  EXPECT_OK(Api().copy(stream.get(), to.data(), from.data(), 12));
  EXPECT_OK(Api().fill(stream.get(), to.data(), 0, 4));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  EXPECT_OK(Api().graph_launch(stream.get(), graph));
  EXPECT_TRUE((to.ToHost() == std::vector<float>{0, 2, 3}));
  EXPECT_OK(Api().graph_destroy(graph));
}

// Captures something that `spoil` spoils, and shows that the stream then is as good as new.
template <typename Spoil>
void ExpectSpoiled(const Spoil& spoil) {
  TestStream stream;
  const Counter counter(stream);
  HeddleCudaGraph* graph = nullptr;
  EXPECT_OK(Api().capture_begin(stream.get()));
  EXPECT_OK(counter.Run(stream));
  spoil(stream);
  EXPECT_STATUS(Api().capture_end(stream.get(), &graph), kHeddleCudaFailed);
  EXPECT_TRUE(graph == nullptr);
  EXPECT_EQ(counter.Count(), 0.0f);
  EXPECT_OK(counter.Run(stream));
  EXPECT_EQ(counter.Count(), 1.0f);

  EXPECT_OK(Api().capture_begin(stream.get()));
  EXPECT_OK(counter.Run(stream));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  EXPECT_OK(Api().graph_launch(stream.get(), graph));
  EXPECT_EQ(counter.Count(), 2.0f);
  EXPECT_OK(Api().graph_destroy(graph));
}

TEST(CudaGraph, "is spoiled by an op that was refused before it reached the device") {
  ExpectSpoiled([](TestStream& stream) { EXPECT_STATUS(RunInvalidOp(stream), kHeddleCudaInvalid); });
}

TEST(CudaGraph, "is spoiled by waiting for the stream") {
  ExpectSpoiled([](TestStream& stream) { EXPECT_TRUE(Api().stream_synchronize(stream.get()) != kHeddleCudaOk); });
}

TEST(CudaGraph, "is spoiled by allocating and by freeing") {
  ExpectSpoiled([](TestStream& stream) {
    void* memory = nullptr;
    EXPECT_STATUS(Api().allocate(stream.get(), 16, &memory), kHeddleCudaInvalid);
  });
  ExpectSpoiled([](TestStream& stream) { EXPECT_STATUS(Api().free(stream.get(), &stream), kHeddleCudaInvalid); });
}

TEST(CudaGraph, "is spoiled by beginning again, and cannot end before it begins") {
  ExpectSpoiled([](TestStream& stream) { EXPECT_STATUS(Api().capture_begin(stream.get()), kHeddleCudaInvalid); });
  TestStream stream;
  HeddleCudaGraph* graph = nullptr;
  EXPECT_STATUS(Api().capture_end(stream.get(), &graph), kHeddleCudaInvalid);
}

TEST(CudaGraph, "records an event each time that it runs") {
  TestStream stream;
  const Counter counter(stream);
  HeddleCudaEvent* event = nullptr;
  HeddleCudaEvent* after = nullptr;
  EXPECT_OK(Api().event_create(stream.get(), &event));
  EXPECT_OK(Api().event_create(stream.get(), &after));
  HeddleCudaGraph* graph = nullptr;
  EXPECT_OK(Api().capture_begin(stream.get()));
  EXPECT_OK(counter.Run(stream));
  EXPECT_OK(Api().event_record(stream.get(), event));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  for (int i = 0; i < 2; ++i) {
    EXPECT_OK(Api().graph_launch(stream.get(), graph));
    EXPECT_OK(Api().event_record(stream.get(), after));
    EXPECT_OK(Api().event_wait(after, kTenSeconds));
    EXPECT_OK(Api().event_wait(event, 0));
    double seconds = -1;
    EXPECT_OK(Api().event_elapsed(event, after, &seconds));
    EXPECT_TRUE(seconds >= 0 && seconds < 0.1);
  }
  EXPECT_OK(Api().graph_destroy(graph));
  for (HeddleCudaEvent* each : {event, after}) EXPECT_OK(Api().event_destroy(each));
}

TEST(CudaGraph, "is captured while another thread allocates, waits and captures too") {
  static_cast<void>(Api());  // skips here, not in the thread
  std::future<void> other = std::async(std::launch::async, [] {
    TestStream stream(0);
    HeddleCudaEvent* event = nullptr;
    EXPECT_OK(Api().event_create(stream.get(), &event));
    for (int round = 0; round < 50; ++round) {
      const Counter counter(stream);
      HeddleCudaGraph* graph = nullptr;
      void* pinned = nullptr;
      EXPECT_OK(Api().allocate_host(stream.get(), 4096, &pinned));
      EXPECT_OK(Api().capture_begin(stream.get()));
      EXPECT_OK(counter.Run(stream));
      EXPECT_OK(Api().capture_end(stream.get(), &graph));
      EXPECT_OK(Api().graph_launch(stream.get(), graph));
      EXPECT_OK(Api().event_record(stream.get(), event));
      EXPECT_OK(Api().event_wait(event, kTenSeconds));
      EXPECT_EQ(counter.Count(), 1.0f);
      EXPECT_OK(Api().graph_destroy(graph));
      EXPECT_OK(Api().free_host(stream.get(), pinned));
    }
    EXPECT_OK(Api().event_destroy(event));
  });
  TestStream stream(0);
  const Counter counter(stream);
  for (int round = 0; round < 50; ++round) {
    HeddleCudaGraph* graph = nullptr;
    EXPECT_OK(Api().capture_begin(stream.get()));
    for (int i = 0; i < 20; ++i) EXPECT_OK(counter.Run(stream));
    EXPECT_OK(Api().capture_end(stream.get(), &graph));
    EXPECT_OK(Api().graph_launch(stream.get(), graph));
    EXPECT_OK(Api().graph_destroy(graph));
  }
  EXPECT_EQ(counter.Count(), 1000.0f);
  other.get();
}

}  // namespace
}  // namespace heddle::test
