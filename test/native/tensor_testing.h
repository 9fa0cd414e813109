// What the tests of ops share: tensors in memory of exactly their size, so that the sanitizer sees a read past the
// end, random contents, and comparisons.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "device/cpu_isa.h"
#include "device/stream.h"
#include "tensor/tensor.h"
#include "test.h"

namespace heddle::test {

// Sizes around the width of a vector, and primes.
inline const std::vector<int64_t> kAwkwardSizes = {1, 15, 16, 17, 111, 989};

// Every instruction set that this machine runs.
inline std::vector<CpuIsa> RunnableIsas() {
  std::vector<CpuIsa> isas;
  for (CpuIsa isa :
       {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Vnni, CpuIsa::kAvx512BFloat16, CpuIsa::kAmx}) {
    if (SupportsCpuIsa(isa)) isas.push_back(isa);
  }
  return isas;
}

// A repeatable sequence of numbers (SplitMix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [low, high).
  float Uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(Bits() >> 40) / static_cast<float>(1 << 24);
  }
  // In [0, count).
  int64_t Below(int64_t count) { return static_cast<int64_t>(Bits() % static_cast<uint64_t>(count)); }

 private:
  uint64_t state_;
};

// An int8 element that is not a number is -128, which nothing rounds to.
inline void SetElement(const TensorView& tensor, int64_t i, float value) {
  switch (tensor.dtype) {
    case DType::kFloat32:
      tensor.Data<float>()[i] = value;
      break;
    case DType::kBFloat16:
      tensor.Data<uint16_t>()[i] = FloatToBFloat16(value);
      break;
    case DType::kInt8:
      tensor.Data<int8_t>()[i] = std::isnan(value) ? int8_t{-128} : static_cast<int8_t>(value);
      break;
    default:
      tensor.Data<uint16_t>()[i] = FloatToFloat16(value);
  }
}

// A tensor whose rows may lie further apart than they are long; the gaps hold NaN.
class TestTensor {
 public:
  explicit TestTensor(DType dtype, const Shape& shape, int64_t gap = 0)
      : size_(shape[0] > 0 ? (shape[0] - 1) * (RowSize(shape) + gap) + RowSize(shape) : 0),
        memory_(std::malloc(static_cast<size_t>(size_) * DTypeSize(dtype)), std::free),
        view_(memory_.get(), dtype, shape, RowSize(shape) + gap) {
    for (int64_t i = 0; i < size_; ++i) SetElement(view_, i, std::nanf(""));
  }

  // Plain copies share memory.
  TestTensor DeepCopy() const {
    TestTensor copy(view_.dtype, view_.shape, gap());
    std::memcpy(copy.memory_.get(), memory_.get(), static_cast<size_t>(size_) * DTypeSize(view_.dtype));
    return copy;
  }

  TestTensor& Fill(Random& random, float low = -1, float high = 1) {
    for (int64_t i = 0; i < view_.dim(0); ++i) {
      for (int64_t j = 0; j < RowSize(view_.shape); ++j) {
        SetElement(view_, i * view_.row_stride + j, random.Uniform(low, high));
      }
    }
    return *this;
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: usable wherever a view is
  float* Row(int64_t i) const { return view_.Row<float>(i); }

 private:
  static int64_t RowSize(const Shape& shape) { return shape[1] * shape[2] * shape[3]; }
  int64_t gap() const { return view_.row_stride - RowSize(view_.shape); }

  int64_t size_;
  std::shared_ptr<void> memory_;
  TensorView view_;
};

inline bool SameBits(const TensorView& a, const TensorView& b) {
  const size_t row_bytes = static_cast<size_t>(a.dim(1) * a.dim(2) * a.dim(3)) * DTypeSize(a.dtype);
  if (a.shape != b.shape || a.dtype != b.dtype) return false;
  for (int64_t i = 0; i < a.dim(0); ++i) {
    const auto* row_a = static_cast<const char*>(a.data) + i * a.row_stride * static_cast<int64_t>(DTypeSize(a.dtype));
    const auto* row_b = static_cast<const char*>(b.data) + i * b.row_stride * static_cast<int64_t>(DTypeSize(b.dtype));
    if (std::memcmp(row_a, row_b, row_bytes) != 0) return false;
  }
  return true;
}

// The largest of |a - b| / (1 + |b|) over all elements; infinity where one is NaN or where infinities differ.
inline double MaxError(const TensorView& a, const TensorView& b) {
  double worst = 0;
  for (int64_t i = 0; i < a.dim(0); ++i) {
    for (int64_t j = 0; j < a.dim(1) * a.dim(2) * a.dim(3); ++j) {
      const double x = a.Row<float>(i)[j];
      const double y = b.Row<float>(i)[j];
      if (x == y) continue;
      const double error = std::abs(x - y) / (1 + std::abs(y));
      worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
    }
  }
  return worst;
}

}  // namespace heddle::test
