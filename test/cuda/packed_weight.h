// A weight that is int8, 2:4 or both, on the device and as a test sees it; and products with it in double, as
// heddle_cuda.h describes them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cuda_testing.h"

namespace heddle::test {

// What is random in such a weight is the same for the same sizes.
class PackedWeight {
 public:
  struct Kind {
    bool int8 = false;
    bool sparse = false;
    HeddleCudaXQuantization x_quantization = kHeddleCudaKeepX;
    float outlier_threshold = 0;

    std::string Name() const;
  };

  // Of `dtype` where it is not int8. `deviation`: of the weights as they are multiplied. `zero_column`, if there is
  // such a one, is zero for all outputs.
  PackedWeight(TestStream& stream, HeddleCudaDType dtype, Kind kind, int64_t n, int64_t k, float deviation = 1,
               int64_t zero_column = -1);

  HeddleCudaWeight Get() const;
  const Kind& kind() const { return kind_; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }

  // x * weight^T, and how far from it the result in float32 may be.
  struct Product {
    std::vector<double> y;
    std::vector<double> error;
  };
  // Of rows of x, [rows, k].
  Product Multiply(const std::vector<float>& x) const;
  // How far y may move where each element of a row moves by no more than these sizes.
  std::vector<double> Reach(const std::vector<double>& sizes) const;

 private:
  void MultiplyRow(const float* x, Product& product) const;

  Kind kind_;
  int64_t n_, k_;
  HeddleCudaDType values_dtype_;
  std::vector<float> values_;  // [n, k], zero where nothing is stored, without scales
  std::vector<float> scales_;  // [n], 1 where there are none
  std::optional<DeviceArray> values_on_device_, scales_on_device_, metadata_on_device_;
};

// `size` rounded up to a multiple, plus a gap: what lies between the beginnings of rows.
int64_t PaddedSize(int64_t size, int64_t multiple, int64_t gap);

// [rows, size] with `stride` elements between rows and `gap` in what lies between.
template <typename T>
std::vector<T> WithGaps(const std::vector<T>& values, int64_t rows, int64_t size, int64_t stride, T gap) {
  std::vector<T> padded(static_cast<size_t>(rows * stride), gap);
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(values.begin() + row * size, size, padded.begin() + row * stride);
  }
  return padded;
}

}  // namespace heddle::test
