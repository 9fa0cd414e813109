// Products some of whose tiles several thread blocks have pieces of.
#include <chrono>
#include <limits>
#include <random>
#include <thread>

#include "ranks.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kBf16 = kHeddleCudaBFloat16;
constexpr int64_t kTimeoutUs = 30'000'000;

// Int8 weights by x in bfloat16.
class Product {
 public:
  Product(TestStream& stream, int64_t rows, int64_t n, int64_t k, bool quantize_x)
      : rows_(rows),
        n_(n),
        k_(k),
        quantize_x_(quantize_x),
        x_(DeviceArray::From(stream, kBf16, RandomFloats(static_cast<size_t>(rows * k), 1))),
        weight_(DeviceArray::Bytes(stream, RandomBytes(static_cast<size_t>(n * k)))),
        scales_(DeviceArray::From(stream, kHeddleCudaFloat32, std::vector<float>(static_cast<size_t>(n), 0.001f))) {}

  int64_t rows() const { return rows_; }
  int64_t n() const { return n_; }

  std::vector<float> Run(TestStream& stream) const {
    const DeviceArray y = DeviceArray::Poisoned(stream, kBf16, static_cast<size_t>(rows_ * n_));
    Launch(stream, y);
    return y.ToHost();
  }

  void Launch(TestStream& stream, const DeviceArray& y) const {
    const HeddleCudaMatmul op = {
        .x = Matrix(x_, kBf16, rows_, k_), .weight = Weight(), .bias = nullptr, .y = Matrix(y, kBf16, rows_, n_)};
    MustSucceed(Api().matmul(stream.get(), &op), "matmul");
  }

 private:
  static std::vector<uint8_t> RandomBytes(size_t count) {
    std::mt19937 random(7);
    std::vector<uint8_t> bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    return bytes;
  }

  HeddleCudaWeight Weight() const {
    return {.values = Matrix(weight_, kHeddleCudaInt8, n_, k_),
            .scales = scales_.As<float>(),
            .metadata = nullptr,
            .metadata_stride = 0,
            .x_quantization = quantize_x_ ? kHeddleCudaQuantizeX : kHeddleCudaKeepX,
            .outlier_threshold = quantize_x_ ? std::numeric_limits<float>::infinity() : 0};
  }

  int64_t rows_, n_, k_;
  bool quantize_x_;
  DeviceArray x_, weight_, scales_;
};

// Two ranks on the device, of which one waits in a kernel until the other has called Meet.
class Waiting {
 public:
  Waiting(TestStream& stream, TestStream& waiting) : stream_(stream) {
    HeddleCudaStream* const streams[] = {stream.get(), waiting.get()};
    MustSucceed(Api().peer_group_create(streams, 2, kBytes, kTimeoutUs, &group_), "peer_group_create");
    for (TestStream* each : {&stream, &waiting}) {
      values_.push_back(DeviceArray::From(*each, kBf16, std::vector<float>(kBytes / 2, 1.0f)));
    }
    AllReduce(waiting, 1);
    // Until the kernel has begun.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ~Waiting() { EXPECT_OK(Api().peer_group_destroy(group_)); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  void Meet() { AllReduce(stream_, 0); }

  // After both streams were synchronised: nobody waited in vain.
  void ExpectMet() const {
    EXPECT_OK(Api().peer_group_async_error(group_));
    for (const DeviceArray& values : values_) EXPECT_EQ(values.ToHost()[0], 2.0f);
  }

 private:
  static constexpr int64_t kBytes = 256 << 10;

  void AllReduce(TestStream& stream, int rank) {
    const HeddleCudaMatrix x = Matrix(values_[static_cast<size_t>(rank)], kBf16, 1, kBytes / 2);
    MustSucceed(Api().one_shot_all_reduce_sum(stream.get(), group_, rank, x), "one_shot_all_reduce_sum");
  }

  TestStream& stream_;
  HeddleCudaPeerGroup* group_ = nullptr;
  std::vector<DeviceArray> values_;
};

TEST(CudaSharedTiles, "are added where another rank's kernel has some multiprocessors until they are") {
  TestStream stream, waiting_stream;
  for (const bool quantize_x : {false, true}) {
    // Of float32 and of int32 sums; shapes whose tiles are shared out.
    const Product product(stream, quantize_x ? 256 : 128, 4096, quantize_x ? 28672 : 14336, quantize_x);
    const std::vector<float> expected = product.Run(stream);
    const DeviceArray y = DeviceArray::Poisoned(stream, kBf16, static_cast<size_t>(product.rows() * product.n()));
    Waiting waiting(stream, waiting_stream);
    for (int i = 0; i < 3; ++i) product.Launch(stream, y);
    waiting.Meet();
    EXPECT_TRUE(SameBits(y.ToHost(), expected));
    waiting_stream.Synchronize();
    waiting.ExpectMet();
    // And nothing is left of it.
    EXPECT_TRUE(SameBits(product.Run(stream), expected));
  }
}

}  // namespace
}  // namespace heddle::test
