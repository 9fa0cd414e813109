#include <algorithm>
#include <cstring>

#include "loader/weight_source.h"

namespace heddle {
namespace {

// A prime, so that rows of a matrix, whatever their length, do not repeat in step with it.
constexpr size_t kBlockSize = 4'194'301;
constexpr float kStandardDeviation = 0.02f;

// SplitMix64: a bijection of 64 bits that passes for random.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// FNV-1a.
uint64_t HashName(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// The sum of four uniform numbers, close enough to a normal one and the same on every machine.
float NearlyNormal(uint64_t bits) {
  int64_t sum = 0;
  for (int shift = 0; shift < 64; shift += 16) sum += static_cast<int64_t>((bits >> shift) & 0xffff);
  constexpr float kMean = 4 * 65535 / 2.0f;
  constexpr float kDeviation = 37837.0f;  // sqrt(4 * 65536^2 / 12)
  return (static_cast<float>(sum) - kMean) * (kStandardDeviation / kDeviation);
}

void Store(float value, DType dtype, size_t i, void* data) {
  switch (dtype) {
    case DType::kBFloat16:
      static_cast<uint16_t*>(data)[i] = FloatToBFloat16(value);
      break;
    case DType::kFloat16:
      static_cast<uint16_t*>(data)[i] = FloatToFloat16(value);
      break;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

bool IsNorm(const std::string& name) {
  const std::string suffix = "norm.weight";
  return name.size() >= suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// One block of random values, made once; a tensor copies it from an offset that its name decides, round and round.
class RandomWeights : public WeightSource {
 public:
  explicit RandomWeights(DType dtype) : dtype_(dtype), block_(dtype, {int64_t{kBlockSize}}) {
    for (size_t i = 0; i < kBlockSize; ++i) Store(NearlyNormal(Mix(i)), dtype, i, block_.view().data);
  }

  Tensor Get(const std::string& name, const Shape& shape) override {
    Tensor tensor(dtype_, shape);
    const auto count = static_cast<size_t>(shape.NumElements());
    if (IsNorm(name)) {
      for (size_t i = 0; i < count; ++i) Store(1.0f, dtype_, i, tensor.view().data);
    } else {
      CopyBlock(HashName(name) % kBlockSize, count, static_cast<char*>(tensor.view().data));
    }
    return tensor;
  }

  bool Has(const std::string&) const override { return true; }
  std::vector<std::string> Unused() const override { return {}; }

 private:
  void CopyBlock(size_t offset, size_t count, char* out) const {
    const size_t size = DTypeSize(dtype_);
    const char* block = static_cast<const char*>(block_.view().data);
    while (count > 0) {
      const size_t chunk = std::min(count, kBlockSize - offset);
      std::memcpy(out, block + offset * size, chunk * size);
      out += chunk * size;
      count -= chunk;
      offset = 0;
    }
  }

  DType dtype_;
  Tensor block_;
};

}  // namespace

std::unique_ptr<WeightSource> DummyWeights(DType dtype) {
  HEDDLE_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16 || dtype == DType::kFloat16, DTypeName(dtype));
  return std::make_unique<RandomWeights>(dtype);
}

}  // namespace heddle
