// Devices, streams, memory, events.
#include <cstring>
#include <future>
#include <numeric>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr int64_t kTenSeconds = 10'000'000;

int64_t AllocatedBytes(const TestStream& stream) {
  int64_t bytes = -1;
  MustSucceed(Api().allocated_bytes(stream.get(), &bytes), "allocated_bytes");
  return bytes;
}

struct TestEvent {
  explicit TestEvent(const TestStream& stream) {
    MustSucceed(Api().event_create(stream.get(), &event), "event_create");
  }
  ~TestEvent() { EXPECT_OK(Api().event_destroy(event)); }
  TestEvent(const TestEvent&) = delete;
  TestEvent& operator=(const TestEvent&) = delete;
  HeddleCudaEvent* event = nullptr;
};

// Keeps the device busy for some tens of milliseconds.
void Work(const TestStream& stream, const DeviceArray& array, int64_t count) {
  for (uint64_t i = 0; i < 100; ++i) {
    const HeddleCudaMatrix all = Matrix(array, kHeddleCudaFloat32, 1, count);
    MustSucceed(Api().fill_random(stream.get(), all, i, 1), "fill_random");
  }
}

TEST(CudaLibrary, "gives no table for another version") {
  EXPECT_TRUE(ApiOfVersion(HEDDLE_CUDA_API_VERSION + 1) == nullptr);
  EXPECT_TRUE(ApiOfVersion(-1) == nullptr);
  EXPECT_TRUE(ApiOfVersion(HEDDLE_CUDA_API_VERSION) != nullptr);
}

TEST(CudaLibrary, "counts devices or says in a sentence why there is none") {
  int32_t count = -1;
  const HeddleCudaStatus status = Library().device_count(&count);
  if (status == kHeddleCudaOk) {
    EXPECT_TRUE(count > 0);
    EXPECT_EQ(std::string(Library().last_error()), "");
  } else {
    EXPECT_EQ(static_cast<int>(status), static_cast<int>(kHeddleCudaUnavailable));
    EXPECT_TRUE(std::strlen(Library().last_error()) > 10);
  }
}

TEST(CudaLibrary, "refuses null arguments") {
  EXPECT_STATUS(Library().device_count(nullptr), kHeddleCudaInvalid);
  EXPECT_STATUS(Library().stream_create(0, 0, kTenSeconds, nullptr), kHeddleCudaInvalid);
  EXPECT_STATUS(Library().stream_synchronize(nullptr), kHeddleCudaInvalid);
  EXPECT_STATUS(Library().rms_norm(nullptr, nullptr), kHeddleCudaInvalid);
  EXPECT_STATUS(Library().event_wait(nullptr, 0), kHeddleCudaInvalid);
}

TEST(CudaDevice, "describes itself, and devices that are not there are refused") {
  const HeddleCudaApi& api = Api();
  HeddleCudaDeviceInfo info{};
  EXPECT_OK(api.device_info(0, &info));
  EXPECT_TRUE(info.name[0] != '\0');
  EXPECT_TRUE(info.major >= 8);
  EXPECT_TRUE(info.num_multiprocessors > 0);
  EXPECT_TRUE(info.free_bytes > 0 && info.free_bytes <= info.total_bytes);
  EXPECT_TRUE(info.l2_bytes > 0);

  int32_t count = 0;
  EXPECT_OK(api.device_count(&count));
  EXPECT_STATUS(api.device_info(count, &info), kHeddleCudaInvalid);
  EXPECT_STATUS(api.device_info(-1, &info), kHeddleCudaInvalid);
  HeddleCudaStream* stream = nullptr;
  EXPECT_STATUS(api.stream_create(count, 0, kTenSeconds, &stream), kHeddleCudaInvalid);
  EXPECT_STATUS(api.stream_create(0, -1, kTenSeconds, &stream), kHeddleCudaInvalid);
  EXPECT_STATUS(api.stream_create(0, 0, 0, &stream), kHeddleCudaInvalid);
  EXPECT_STATUS(api.stream_create(0, int64_t{1} << 40, kTenSeconds, &stream), kHeddleCudaOutOfMemory);
}

TEST(CudaMemory, "is counted for the device over all streams") {
  TestStream first(0);
  TestStream second(0);
  const int64_t before = AllocatedBytes(first);
  void* a = nullptr;
  void* b = nullptr;
  EXPECT_OK(Api().allocate(first.get(), 1000, &a));
  EXPECT_OK(Api().allocate(second.get(), 24, &b));
  EXPECT_TRUE(a != nullptr && b != nullptr && a != b);
  EXPECT_EQ(AllocatedBytes(first) - before, 1024);
  EXPECT_EQ(AllocatedBytes(second) - before, 1024);
  EXPECT_OK(Api().free(first.get(), a));
  EXPECT_EQ(AllocatedBytes(second) - before, 24);
  EXPECT_OK(Api().free(second.get(), b));
  EXPECT_EQ(AllocatedBytes(first), before);
}

TEST(CudaMemory, "of no bytes is null; freed twice or from another stream it is refused") {
  TestStream stream(0);
  TestStream other(0);
  void* memory = &stream;
  EXPECT_OK(Api().allocate(stream.get(), 0, &memory));
  EXPECT_TRUE(memory == nullptr);
  EXPECT_OK(Api().free(stream.get(), nullptr));
  EXPECT_STATUS(Api().allocate(stream.get(), -1, &memory), kHeddleCudaInvalid);

  EXPECT_OK(Api().allocate(stream.get(), 16, &memory));
  EXPECT_STATUS(Api().free(other.get(), memory), kHeddleCudaInvalid);
  EXPECT_STATUS(Api().stream_destroy(stream.get()), kHeddleCudaInvalid);
  EXPECT_OK(Api().free(stream.get(), memory));
  EXPECT_STATUS(Api().free(stream.get(), memory), kHeddleCudaInvalid);
}

TEST(CudaMemory, "runs out with a status of its own, and the stream goes on") {
  TestStream stream(0);
  const int64_t before = AllocatedBytes(stream);
  void* memory = nullptr;
  EXPECT_STATUS(Api().allocate(stream.get(), int64_t{1} << 40, &memory), kHeddleCudaOutOfMemory);
  EXPECT_EQ(AllocatedBytes(stream), before);
  const DeviceArray array = DeviceArray::From(stream, kHeddleCudaFloat32, {1, 2, 3});
  EXPECT_TRUE((array.ToHost() == std::vector<float>{1, 2, 3}));
}

TEST(CudaMemory, "copies any number of bytes, either way and on the device") {
  TestStream stream(0);
  for (int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{17}, int64_t{65537}, int64_t{5'000'001}}) {
    void* pinned = nullptr;
    EXPECT_OK(Api().allocate_host(stream.get(), bytes, &pinned));
    std::vector<char> sent(static_cast<size_t>(bytes));
    for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 7 + i / 251);
    void* a = nullptr;
    void* b = nullptr;
    EXPECT_OK(Api().allocate(stream.get(), bytes, &a));
    EXPECT_OK(Api().allocate(stream.get(), bytes, &b));
    EXPECT_OK(Api().copy(stream.get(), a, sent.data(), bytes));
    EXPECT_OK(Api().copy(stream.get(), b, a, bytes));
    EXPECT_OK(Api().copy(stream.get(), pinned, b, bytes));
    stream.Synchronize();
    EXPECT_TRUE(bytes == 0 || std::memcmp(pinned, sent.data(), sent.size()) == 0);
    for (void* memory : {a, b}) EXPECT_OK(Api().free(stream.get(), memory));
    EXPECT_OK(Api().free_host(stream.get(), pinned));
  }
  EXPECT_STATUS(Api().copy(stream.get(), nullptr, nullptr, 1), kHeddleCudaInvalid);
  EXPECT_STATUS(Api().copy(stream.get(), nullptr, nullptr, -1), kHeddleCudaInvalid);
}

TEST(CudaMemory, "copies rows and leaves what lies between them") {
  TestStream stream(0);
  std::vector<float> values(3 * 7);
  std::iota(values.begin(), values.end(), 0.0f);
  const DeviceArray from = DeviceArray::From(stream, kHeddleCudaFloat32, values);
  const DeviceArray to = DeviceArray::Poisoned(stream, kHeddleCudaFloat32, 3 * 6);
  EXPECT_OK(Api().copy_2d(stream.get(), to.data(), 6 * 4, from.data(), 7 * 4, 5 * 4, 3));
  EXPECT_TRUE(RowsOf(to.ToHost(), 3, 5, 6) == RowsOf(values, 3, 5, 7));
  EXPECT_TRUE(GapsAreNaN(to.ToHost(), 3, 5, 6));
  EXPECT_STATUS(Api().copy_2d(stream.get(), to.data(), 16, from.data(), 28, 20, 3), kHeddleCudaInvalid);
  EXPECT_OK(Api().copy_2d(stream.get(), nullptr, 0, nullptr, 0, 20, 0));
}

TEST(CudaMemory, "is filled with a byte") {
  TestStream stream(0);
  const DeviceArray array = DeviceArray::Ints(stream, {1, 2, 3});
  EXPECT_OK(Api().fill(stream.get(), array.data(), 0x05, 8));
  EXPECT_TRUE((array.ToHostInts() == std::vector<int32_t>{0x05050505, 0x05050505, 3}));
}

TEST(CudaEvent, "is waited for until its deadline, then until it is reached, and tells the time between") {
  TestStream stream(0);
  constexpr int64_t kCount = 1 << 26;
  const DeviceArray array = DeviceArray::Poisoned(stream, kHeddleCudaFloat32, kCount);
  TestEvent before(stream);
  TestEvent after(stream);
  EXPECT_OK(Api().event_wait(before.event, 0));  // never recorded
  EXPECT_OK(Api().event_record(stream.get(), before.event));
  Work(stream, array, kCount);
  EXPECT_OK(Api().event_record(stream.get(), after.event));
  EXPECT_STATUS(Api().event_wait(after.event, 0), kHeddleCudaTimeout);
  EXPECT_STATUS(Api().event_wait(after.event, 200), kHeddleCudaTimeout);
  EXPECT_OK(Api().event_wait(after.event, kTenSeconds));
  EXPECT_OK(Api().event_wait(before.event, 0));
  double seconds = 0;
  EXPECT_OK(Api().event_elapsed(before.event, after.event, &seconds));
  // 100 times 256 MiB cannot be written in a millisecond, nor take a second.
  EXPECT_TRUE(seconds > 1e-3 && seconds < 1);
}

TEST(CudaStream, "is waited for no longer than its limit, by what an op has to wait for neither") {
  TestStream stream(int64_t{256} << 20, 500);
  const TestEvent end(stream);
  constexpr int64_t kCount = 1 << 26;
  const DeviceArray array = DeviceArray::Poisoned(stream, kHeddleCudaFloat32, kCount);
  constexpr int64_t kSize = 512;
  const HeddleCudaMatrix x = Matrix(array, kHeddleCudaFloat32, kSize, kSize);
  const HeddleCudaMatmul op{x, DenseWeight(x), nullptr, x};
  Work(stream, array, kCount);
  EXPECT_STATUS(Api().stream_synchronize(stream.get()), kHeddleCudaTimeout);
  // What another stream has loaded does not take the time in which this one's work would end.
  const TestStream other(int64_t{256} << 20);
  EXPECT_OK(Api().matmul(other.get(), &op));
  EXPECT_OK(Api().stream_synchronize(other.get()));
  for (int i = 0; i < 10; ++i) Work(stream, array, kCount);
  EXPECT_STATUS(Api().matmul(stream.get(), &op), kHeddleCudaTimeout);
  EXPECT_OK(Api().event_record(stream.get(), end.event));
  EXPECT_OK(Api().event_wait(end.event, kTenSeconds));
  EXPECT_OK(Api().stream_synchronize(stream.get()));
}

TEST(CudaStream, "may be one of several that threads use at the same time") {
  static_cast<void>(Api());  // skips here, not in the threads
  const auto fill = [](uint64_t seed) {
    TestStream stream(1 << 20);
    const DeviceArray y = DeviceArray::Poisoned(stream, kHeddleCudaFloat32, 4096);
    for (int round = 0; round < 50; ++round) {
      const DeviceArray other = DeviceArray::Poisoned(stream, kHeddleCudaFloat32, 100'000);
      EXPECT_OK(Api().fill_random(stream.get(), Matrix(y, kHeddleCudaFloat32, 1, 4096), seed, 1));
    }
    return y.ToHost();
  };
  std::vector<std::future<std::vector<float>>> running;
  for (uint64_t i = 0; i < 4; ++i) running.push_back(std::async(std::launch::async, fill, i % 2));
  std::vector<std::vector<float>> results;
  for (auto& result : running) results.push_back(result.get());
  EXPECT_TRUE(results[0] == results[2] && results[1] == results[3] && results[0] != results[1]);
}

}  // namespace
}  // namespace heddle::test
