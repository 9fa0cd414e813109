// What an error does that loses the device for the whole process. Each test runs in a process of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr const char* kIsChild = "HEDDLE_TEST_LOSES_DEVICE";
constexpr int64_t kTimeoutUs = 10'000'000;
constexpr int64_t kSize = 512;

// Whether this is the process that may lose its device; else runs the test in one.
bool IsChild(const std::string& test) {
  if (std::getenv(kIsChild) != nullptr) return true;
  static_cast<void>(Api());  // skips here
  const std::string command = std::string(kIsChild) + "=1 /proc/" + std::to_string(getpid()) + "/exe '" + test + "'";
  const int status = std::system(command.c_str());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return false;
}

HeddleCudaStream* CreateStream() {
  HeddleCudaStream* stream = nullptr;
  MustSucceed(Api().stream_create(0, int64_t{256} << 20, kTimeoutUs, &stream), "stream_create");
  return stream;
}

HeddleCudaMatrix CreateMatrix(HeddleCudaStream* stream) {
  HeddleCudaMatrix matrix{nullptr, kHeddleCudaBFloat16, kSize, kSize, kSize};
  MustSucceed(Api().allocate(stream, kSize * kSize * 2, &matrix.data), "allocate");
  MustSucceed(Api().fill(stream, matrix.data, 0, kSize * kSize * 2), "fill");
  return matrix;
}

// Reads a table that is nowhere.
void LoseDevice(HeddleCudaStream* stream, const HeddleCudaMatrix& ids) {
  const HeddleCudaMatrix nowhere{reinterpret_cast<void*>(uintptr_t{1} << 20), kHeddleCudaFloat32, 1, 16, 16};
  void* y = nullptr;
  MustSucceed(Api().allocate(stream, 16 * 4, &y), "allocate");
  const HeddleCudaEmbedding op{.ids = static_cast<const int32_t*>(ids.data),
                               .table = nowhere,
                               .table_scales = nullptr,
                               .first_id = 0,
                               .scale = 1,
                               .y = {y, kHeddleCudaFloat32, 1, 16, 16}};
  EXPECT_OK(Api().embedding(stream, &op));
  EXPECT_STATUS(Api().stream_synchronize(stream), kHeddleCudaSticky);
}

TEST(CudaLostDevice, "is sticky in every call, in products by cuBLASLt too, begun before or not") {
  if (!IsChild("CudaLostDevice: is sticky in every call")) return;
  HeddleCudaStream* const used = CreateStream();
  HeddleCudaStream* const fresh = CreateStream();
  const HeddleCudaMatrix x = CreateMatrix(used);
  const HeddleCudaMatrix y = CreateMatrix(used);
  const HeddleCudaMatmul op{x, DenseWeight(x), nullptr, y};
  HeddleCudaEvent* event = nullptr;
  EXPECT_OK(Api().event_create(used, &event));
  EXPECT_OK(Api().matmul(used, &op));
  EXPECT_OK(Api().event_record(used, event));
  EXPECT_OK(Api().stream_synchronize(used));
  LoseDevice(used, x);
  EXPECT_STATUS(Api().matmul(fresh, &op), kHeddleCudaSticky);
  EXPECT_STATUS(Api().matmul(used, &op), kHeddleCudaSticky);
  EXPECT_STATUS(Api().event_wait(event, 0), kHeddleCudaSticky);
  void* memory = nullptr;
  EXPECT_STATUS(Api().allocate(fresh, 256, &memory), kHeddleCudaSticky);
  EXPECT_STATUS(Api().allocate_host(fresh, 256, &memory), kHeddleCudaSticky);
}

}  // namespace
}  // namespace heddle::test
