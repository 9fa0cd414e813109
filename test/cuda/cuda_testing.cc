#include "cuda_testing.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <stdexcept>
#include <utility>

#include "base/dtype.h"

namespace heddle::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kDefaultLibrary = "build/cuda/libheddle_cuda.so";

using GetApi = const HeddleCudaApi* (*)(int32_t);

// A library that is there and cannot be used is a failure, not a reason to skip.
GetApi OpenLibrary() {
  const char* given = std::getenv("HEDDLE_CUDA_LIBRARY");
  const std::string path = std::filesystem::absolute(given != nullptr ? given : kDefaultLibrary);
  if (given == nullptr && !std::filesystem::exists(path)) {
    throw Skipped{std::string(kDefaultLibrary) + " is not there; `npm run build:cuda` builds it"};
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  void* function = dlsym(library, "HeddleCudaGetApi");
  if (function == nullptr) throw std::runtime_error(dlerror());
  return reinterpret_cast<GetApi>(function);
}

size_t BytesOf(HeddleCudaDType dtype) { return dtype == kHeddleCudaFloat32 ? 4 : 2; }

uint16_t To16Bits(HeddleCudaDType dtype, float value) {
  return dtype == kHeddleCudaFloat16 ? FloatToFloat16(value) : FloatToBFloat16(value);
}

float From16Bits(HeddleCudaDType dtype, uint16_t bits) {
  return dtype == kHeddleCudaFloat16 ? Float16ToFloat(bits) : BFloat16ToFloat(bits);
}

// The host memory may go at once.
void CopyFromHost(TestStream& stream, void* to, const void* from, size_t bytes) {
  MustSucceed(Api().copy(stream.get(), to, from, static_cast<int64_t>(bytes)), "copy");
  stream.Synchronize();
}

}  // namespace

const HeddleCudaApi* ApiOfVersion(int32_t version) {
  static const GetApi get_api = OpenLibrary();
  return get_api(version);
}

const HeddleCudaApi& Library() {
  const HeddleCudaApi* api = ApiOfVersion(HEDDLE_CUDA_API_VERSION);
  if (api == nullptr) throw std::runtime_error("the CUDA library is of another version than its header");
  return *api;
}

const HeddleCudaApi& Api() {
  const HeddleCudaApi& api = Library();
  static const std::string unavailable = [&] {
    int32_t count = 0;
    return std::string(api.device_count(&count) == kHeddleCudaOk ? "" : api.last_error());
  }();
  if (!unavailable.empty()) throw Skipped{unavailable};
  return api;
}

void MustSucceed(HeddleCudaStatus status, const char* what) {
  if (status != kHeddleCudaOk) throw std::runtime_error(std::string(what) + ": " + Library().last_error());
}

TestStream::TestStream(int64_t workspace_bytes, int64_t timeout_us) {
  MustSucceed(Api().stream_create(0, workspace_bytes, timeout_us, &stream_), "stream_create");
}

TestStream::~TestStream() { EXPECT_OK(Api().stream_destroy(stream_)); }

void TestStream::Synchronize() { MustSucceed(Api().stream_synchronize(stream_), "stream_synchronize"); }

DeviceArray::DeviceArray(TestStream& stream, HeddleCudaDType dtype, size_t count, size_t element_bytes)
    : stream_(&stream), dtype_(dtype), count_(count), bytes_(count * element_bytes) {
  MustSucceed(Api().allocate(stream.get(), static_cast<int64_t>(bytes_), &data_), "allocate");
}

DeviceArray::DeviceArray(DeviceArray&& other) noexcept
    : stream_(other.stream_),
      dtype_(other.dtype_),
      count_(other.count_),
      bytes_(other.bytes_),
      data_(std::exchange(other.data_, nullptr)) {}

DeviceArray::~DeviceArray() {
  if (data_ != nullptr) EXPECT_OK(Api().free(stream_->get(), data_));
}

DeviceArray DeviceArray::From(TestStream& stream, HeddleCudaDType dtype, const std::vector<float>& values) {
  DeviceArray array(stream, dtype, values.size(), BytesOf(dtype));
  if (dtype == kHeddleCudaFloat32) {
    CopyFromHost(stream, array.data_, values.data(), array.bytes_);
    return array;
  }
  std::vector<uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), [&](float value) { return To16Bits(dtype, value); });
  CopyFromHost(stream, array.data_, bits.data(), array.bytes_);
  return array;
}

DeviceArray DeviceArray::Poisoned(TestStream& stream, HeddleCudaDType dtype, size_t count) {
  DeviceArray array(stream, dtype, count, BytesOf(dtype));
  // All ones are a NaN in each of the formats.
  MustSucceed(Api().fill(stream.get(), array.data_, 0xff, static_cast<int64_t>(array.bytes_)), "fill");
  return array;
}

DeviceArray DeviceArray::Ints(TestStream& stream, const std::vector<int32_t>& values) {
  DeviceArray array(stream, kHeddleCudaFloat32, values.size(), sizeof(int32_t));
  CopyFromHost(stream, array.data_, values.data(), array.bytes_);
  return array;
}

DeviceArray DeviceArray::Longs(TestStream& stream, const std::vector<int64_t>& values) {
  DeviceArray array(stream, kHeddleCudaFloat32, values.size(), sizeof(int64_t));
  CopyFromHost(stream, array.data_, values.data(), array.bytes_);
  return array;
}

DeviceArray DeviceArray::Bytes(TestStream& stream, const std::vector<uint8_t>& values) {
  DeviceArray array(stream, kHeddleCudaInt8, values.size(), 1);
  CopyFromHost(stream, array.data_, values.data(), array.bytes_);
  return array;
}

// The host's memory is pageable: such a copy holds a lock of the driver's until the stream has come so far, and another
// rank's thread, for whose collective the stream waits, would wait for the lock.
void DeviceArray::CopyTo(void* host) const {
  stream_->Synchronize();
  MustSucceed(Api().copy(stream_->get(), host, data_, static_cast<int64_t>(bytes_)), "copy");
  stream_->Synchronize();
}

std::vector<float> DeviceArray::ToHost() const {
  std::vector<float> values(count_);
  if (dtype_ == kHeddleCudaFloat32) {
    CopyTo(values.data());
    return values;
  }
  std::vector<uint16_t> bits(count_);
  CopyTo(bits.data());
  std::transform(bits.begin(), bits.end(), values.begin(), [&](uint16_t bit) { return From16Bits(dtype_, bit); });
  return values;
}

std::vector<int32_t> DeviceArray::ToHostInts() const {
  std::vector<int32_t> values(bytes_ / sizeof(int32_t));
  CopyTo(values.data());
  return values;
}

std::vector<uint8_t> DeviceArray::ToHostBytes() const {
  std::vector<uint8_t> values(bytes_);
  CopyTo(values.data());
  return values;
}

std::vector<float> RandomFloats(size_t count, uint64_t seed, float deviation) {
  std::mt19937_64 bits(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(bits);
  return values;
}

std::vector<float> Rounded(HeddleCudaDType dtype, std::vector<float> values) {
  if (dtype == kHeddleCudaFloat32) return values;
  for (float& value : values) value = From16Bits(dtype, To16Bits(dtype, value));
  return values;
}

HeddleCudaMatrix Matrix(const DeviceArray& array, HeddleCudaDType dtype, int64_t rows, int64_t size, int64_t stride) {
  return {array.data(), dtype, rows, size, stride == 0 ? size : stride};
}

HeddleCudaWeight DenseWeight(const HeddleCudaMatrix& values) {
  return {.values = values,
          .scales = nullptr,
          .metadata = nullptr,
          .metadata_stride = 0,
          .x_quantization = kHeddleCudaKeepX,
          .outlier_threshold = 0};
}

std::vector<float> RowsOf(const std::vector<float>& array, int64_t rows, int64_t size, int64_t stride) {
  std::vector<float> values;
  for (int64_t row = 0; row < rows; ++row) {
    values.insert(values.end(), array.begin() + row * stride, array.begin() + row * stride + size);
  }
  return values;
}

bool GapsAreNaN(const std::vector<float>& array, int64_t rows, int64_t size, int64_t stride) {
  for (int64_t i = 0; i < static_cast<int64_t>(array.size()); ++i) {
    const bool is_gap = i >= rows * stride || i % stride >= size;
    if (is_gap && !std::isnan(array[static_cast<size_t>(i)])) return false;
  }
  return true;
}

double RelativeError(const std::vector<float>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) return kNaN;
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

double MaxError(const std::vector<float>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) return kNaN;
  double worst = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]);
    if (std::isnan(error)) return kNaN;
    worst = std::max(worst, error);
  }
  return worst;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double Tolerance(HeddleCudaDType dtype) {
  switch (dtype) {
    case kHeddleCudaFloat32:
      return 1e-5;
    case kHeddleCudaFloat16:
      return 2e-3;
    case kHeddleCudaBFloat16:
      return 1e-2;
    case kHeddleCudaInt8:
      break;
  }
  return 0;
}

const char* NameOf(HeddleCudaDType dtype) {
  switch (dtype) {
    case kHeddleCudaFloat32:
      return "float32";
    case kHeddleCudaFloat16:
      return "float16";
    case kHeddleCudaBFloat16:
      return "bfloat16";
    case kHeddleCudaInt8:
      return "int8";
  }
  return "no dtype";
}

}  // namespace heddle::test
