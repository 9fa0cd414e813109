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

bool IsNorm(const std::string& name) {
  const std::string suffix = "norm.weight";
  return name.size() >= suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

class ConstantTensor : public StoredTensor {
 public:
  ConstantTensor(DType dtype, const Shape& shape, float value) : StoredTensor(dtype, shape), value_(value) {}

 private:
  void ReadElements(int64_t, int64_t count, void* destination) const override {
    for (int64_t i = 0; i < count; ++i) StoreFloat(dtype(), destination, i, value_);
  }

  float value_;
};

// Two of four neighbours, by the number of their group: each of the six choices as often as the others.
bool IsKept(size_t element) {
  constexpr unsigned kChoices[] = {0b0011, 0b0101, 0b0110, 0b1001, 0b1010, 0b1100};
  return (kChoices[Mix(element / 4) % 6] >> element % 4 & 1) != 0;
}

// Element i is element (offset + i) mod kBlockSize of the block.
class RandomTensor : public StoredTensor {
 public:
  RandomTensor(const Tensor& block, const Shape& shape, size_t offset, bool sparse)
      : StoredTensor(block.view().dtype, shape), block_(block), offset_(offset), sparse_(sparse) {}

 private:
  void ReadElements(int64_t begin, int64_t count, void* destination) const override {
    const size_t size = DTypeSize(dtype());
    const char* block = static_cast<const char*>(block_.view().data);
    auto* out = static_cast<char*>(destination);
    size_t offset = (offset_ + static_cast<size_t>(begin)) % kBlockSize;
    for (auto left = static_cast<size_t>(count); left > 0; offset = 0) {
      const size_t chunk = std::min(left, kBlockSize - offset);
      std::memcpy(out, block + offset * size, chunk * size);
      out += chunk * size;
      left -= chunk;
    }
    for (auto i = static_cast<size_t>(begin); sparse_ && i < static_cast<size_t>(begin + count); ++i) {
      if (!IsKept(i)) StoreFloat(dtype(), destination, static_cast<int64_t>(i) - begin, 0);
    }
  }

  const Tensor& block_;
  size_t offset_;
  bool sparse_;
};

// One block of random values, made once; a tensor repeats it from an offset that its name decides, round and round.
class RandomWeights : public WeightSource {
 public:
  RandomWeights(DType dtype, bool sparse) : dtype_(dtype), sparse_(sparse), block_(dtype, {int64_t{kBlockSize}}) {
    for (size_t i = 0; i < kBlockSize; ++i) {
      StoreFloat(dtype, block_.view().data, static_cast<int64_t>(i), NearlyNormal(Mix(i)));
    }
  }

  std::unique_ptr<StoredTensor> Get(const std::string& name, const Shape& shape) override {
    if (IsNorm(name)) return std::make_unique<ConstantTensor>(dtype_, shape, 1.0f);
    return std::make_unique<RandomTensor>(block_, shape, HashName(name) % kBlockSize, sparse_ && shape.rank() == 2);
  }

  bool Has(const std::string&) const override { return true; }
  std::vector<std::string> Unused() const override { return {}; }

 private:
  DType dtype_;
  bool sparse_;
  Tensor block_;
};

}  // namespace

std::unique_ptr<WeightSource> DummyWeights(DType dtype, bool sparse) {
  HEDDLE_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16 || dtype == DType::kFloat16, DTypeName(dtype));
  return std::make_unique<RandomWeights>(dtype, sparse);
}

}  // namespace heddle
