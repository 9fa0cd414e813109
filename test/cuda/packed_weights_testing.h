// Weights that are int8, 2:4 or both, on the device and as a test sees them; products with them in double, as
// heddle_cuda.h describes them; and what every kind of such a weight is held to.
#pragma once

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

  // Of `dtype` where it is not int8. `deviation`: of the weights as they are multiplied.
  PackedWeight(TestStream& stream, HeddleCudaDType dtype, Kind kind, int64_t n, int64_t k, float deviation = 1);

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

 private:
  void MultiplyRow(const float* x, Product& product) const;

  Kind kind_;
  int64_t n_, k_;
  HeddleCudaDType values_dtype_;
  std::vector<float> values_;  // [n, k], zero where nothing is stored, without scales
  std::vector<float> scales_;  // [n], 1 where there are none
  std::optional<DeviceArray> values_on_device_, scales_on_device_, metadata_on_device_;
};

// Of both types that x can have, what `kinds` are held to: any size and number of rows, from 1 to 8; rows of zeros;
// a bias; y of T and of float32; nothing written beside y.
void ExpectPackedProducts(const std::vector<PackedWeight::Kind>& kinds);
// Gated products, every activation, with and without a bias.
void ExpectPackedGatedProducts(const std::vector<PackedWeight::Kind>& kinds);
// A row gets the same bits alone, beside others whatever they hold, and in a graph.
void ExpectPackedRowsAlone(const std::vector<PackedWeight::Kind>& kinds);
// NaN and infinity spoil the row of x that holds them, and no other.
void ExpectPackedNotFinite(const std::vector<PackedWeight::Kind>& kinds);
// A product waits for the x that a product before it writes.
void ExpectPackedInOrder(const std::vector<PackedWeight::Kind>& kinds);

}  // namespace heddle::test
