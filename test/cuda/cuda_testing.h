// What the tests of libheddle_cuda.so share: the opened library, streams, device memory, random numbers, comparisons.
//
// Device memory belongs to its stream and must go before it. A call that fails where a test expects nothing of it
// throws, with the library's own sentence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "heddle_cuda.h"
#include "test.h"

namespace heddle::test {

// The library that HEDDLE_CUDA_LIBRARY names, or build/cuda/libheddle_cuda.so. Skips the test when there is none.
const HeddleCudaApi& Library();
// HeddleCudaGetApi of that library.
const HeddleCudaApi* ApiOfVersion(int32_t version);
// The same, and a device to use it on; else the test is skipped.
const HeddleCudaApi& Api();

// Throws std::runtime_error unless `status` is kHeddleCudaOk.
void MustSucceed(HeddleCudaStatus status, const char* what);

// A stream of device 0.
class TestStream {
 public:
  explicit TestStream(int64_t workspace_bytes = int64_t{256} << 20, int64_t timeout_us = 60'000'000);
  ~TestStream();
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;

  HeddleCudaStream* get() const { return stream_; }
  void Synchronize();

 private:
  HeddleCudaStream* stream_ = nullptr;
};

// Device memory of a number of elements.
class DeviceArray {
 public:
  // `values` rounded to `dtype`.
  static DeviceArray From(TestStream& stream, HeddleCudaDType dtype, const std::vector<float>& values);
  // NaN everywhere.
  static DeviceArray Poisoned(TestStream& stream, HeddleCudaDType dtype, size_t count);
  static DeviceArray Ints(TestStream& stream, const std::vector<int32_t>& values);
  static DeviceArray Longs(TestStream& stream, const std::vector<int64_t>& values);
  // Not for ToHost.
  static DeviceArray Bytes(TestStream& stream, const std::vector<uint8_t>& values);

  DeviceArray(DeviceArray&& other) noexcept;
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray();

  void* data() const { return data_; }
  template <class T>
  T* As() const {
    return static_cast<T*>(data_);
  }

  // The elements, once the stream has come so far.
  std::vector<float> ToHost() const;
  std::vector<int32_t> ToHostInts() const;
  std::vector<uint8_t> ToHostBytes() const;

 private:
  DeviceArray(TestStream& stream, HeddleCudaDType dtype, size_t count, size_t element_bytes);
  void CopyTo(void* host) const;

  TestStream* stream_;
  HeddleCudaDType dtype_;
  size_t count_;
  size_t bytes_;
  void* data_ = nullptr;
};

// Normally distributed around 0; the same for the same seed.
std::vector<float> RandomFloats(size_t count, uint64_t seed, float deviation = 1);
// To `dtype` and back.
std::vector<float> Rounded(HeddleCudaDType dtype, std::vector<float> values);

// [rows, size] in `array`, whose dtype is given again. Rows lie `stride` elements apart, `size` when 0.
HeddleCudaMatrix Matrix(const DeviceArray& array, HeddleCudaDType dtype, int64_t rows, int64_t size,
                        int64_t stride = 0);
// A dense weight of floats.
HeddleCudaWeight DenseWeight(const HeddleCudaMatrix& values);
// Of an array of [rows, stride], the first `size` elements of each row.
std::vector<float> RowsOf(const std::vector<float>& array, int64_t rows, int64_t size, int64_t stride);
// Whether all that lies between those is NaN, as Poisoned left it.
bool GapsAreNaN(const std::vector<float>& array, int64_t rows, int64_t size, int64_t stride);

// ||actual - expected|| / ||expected||; NaN if there is one, or when the sizes differ.
double RelativeError(const std::vector<float>& actual, const std::vector<double>& expected);
// The largest |actual - expected|; NaN likewise.
double MaxError(const std::vector<float>& actual, const std::vector<double>& expected);
// NaN is the same as NaN of the same bits.
bool SameBits(const std::vector<float>& a, const std::vector<float>& b);
// Of RelativeError, for results that were rounded to `dtype`.
double Tolerance(HeddleCudaDType dtype);

inline constexpr HeddleCudaDType kAllDTypes[3] = {kHeddleCudaFloat32, kHeddleCudaFloat16, kHeddleCudaBFloat16};
const char* NameOf(HeddleCudaDType dtype);

}  // namespace heddle::test

// The call succeeds; otherwise the failure says what the library said.
#define EXPECT_OK(call)                                                                              \
  do {                                                                                               \
    const HeddleCudaStatus ok_status = (call);                                                       \
    if (ok_status != kHeddleCudaOk)                                                                  \
      ::heddle::test::Fail(__FILE__, __LINE__,                                                       \
                           std::string(#call " failed: ") + ::heddle::test::Library().last_error()); \
  } while (0)

// The call is refused with this status, and last_error has a sentence about it.
#define EXPECT_STATUS(call, expected)                                                              \
  do {                                                                                             \
    EXPECT_EQ(static_cast<int>(call), static_cast<int>(expected));                                 \
    EXPECT_TRUE((expected) == kHeddleCudaOk || ::heddle::test::Library().last_error()[0] != '\0'); \
  } while (0)
