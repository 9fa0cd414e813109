#include "packed_weight.h"

#include <cmath>
#include <limits>
#include <random>

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;

}  // namespace

int64_t PaddedSize(int64_t size, int64_t multiple, int64_t gap) {
  return (size + multiple - 1) / multiple * multiple + gap;
}

std::string PackedWeight::Kind::Name() const {
  std::string name = std::string(sparse ? "2:4 " : "") + (int8 ? "int8" : "");
  if (x_quantization == kHeddleCudaQuantizeX) name += ", outliers from " + Show(outlier_threshold);
  return name;
}

PackedWeight::PackedWeight(TestStream& stream, HeddleCudaDType dtype, Kind kind, int64_t n, int64_t k, float deviation,
                           int64_t zero_column)
    : kind_(kind),
      n_(n),
      k_(k),
      values_dtype_(kind.int8 ? kHeddleCudaInt8 : dtype),
      values_(static_cast<size_t>(n * k)),
      scales_(static_cast<size_t>(n), 1.0f) {
  std::mt19937 bits(7);
  if (kind.int8) {
    // 74: the deviation of what is evenly distributed over all int8.
    for (float& value : values_) value = static_cast<float>(static_cast<int>(bits() % 256) - 128);
    for (float& scale : scales_) scale = deviation / 74 * static_cast<float>(1 + bits() % 8) / 4;
  } else {
    values_ = Rounded(dtype, RandomFloats(values_.size(), 2, deviation));
  }
  if (zero_column >= 0) {
    for (int64_t i = 0; i < n; ++i) values_[i * k + zero_column] = 0;
  }

  std::vector<float> stored = values_;
  if (kind.sparse) {
    stored.clear();
    std::vector<uint8_t> metadata(static_cast<size_t>(n * k / 8), 0);
    for (int64_t group = 0; group < n * k / 4; ++group) {
      constexpr int kPairs[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};
      const int* const pair = kPairs[bits() % 6];
      float* const values = &values_[group * 4];
      for (int i = 0; i < 4; ++i) {
        if (i != pair[0] && i != pair[1]) values[i] = 0;
      }
      stored.push_back(values[pair[0]]);
      stored.push_back(values[pair[1]]);
      metadata[group / 2] |= static_cast<uint8_t>((pair[0] | pair[1] << 2) << group % 2 * 4);
    }
    metadata_on_device_.emplace(
        DeviceArray::Bytes(stream, WithGaps<uint8_t>(metadata, n, k / 8, PaddedSize(k / 8, 16, 16), 0xff)));
  }

  const int64_t size = kind.sparse ? k / 2 : k;
  if (kind.int8) {
    std::vector<uint8_t> values;
    for (const float value : stored) values.push_back(static_cast<uint8_t>(static_cast<int8_t>(value)));
    values_on_device_.emplace(
        DeviceArray::Bytes(stream, WithGaps<uint8_t>(values, n, size, PaddedSize(size, 16, 16), 0x7f)));
    scales_on_device_.emplace(DeviceArray::From(stream, kF32, scales_));
  } else {
    values_on_device_.emplace(DeviceArray::From(
        stream, dtype, WithGaps(stored, n, size, PaddedSize(size, 8, 8), std::numeric_limits<float>::quiet_NaN())));
  }
}

HeddleCudaWeight PackedWeight::Get() const {
  const int64_t size = kind_.sparse ? k_ / 2 : k_;
  const int64_t stride = kind_.int8 ? PaddedSize(size, 16, 16) : PaddedSize(size, 8, 8);
  return {.values = Matrix(*values_on_device_, values_dtype_, n_, size, stride),
          .scales = kind_.int8 ? scales_on_device_->As<float>() : nullptr,
          .metadata = kind_.sparse ? metadata_on_device_->As<uint8_t>() : nullptr,
          .metadata_stride = kind_.sparse ? PaddedSize(k_ / 8, 16, 16) : 0,
          .x_quantization = kind_.x_quantization,
          .outlier_threshold = kind_.outlier_threshold};
}

PackedWeight::Product PackedWeight::Multiply(const std::vector<float>& x) const {
  Product product;
  for (size_t first = 0; first < x.size(); first += static_cast<size_t>(k_)) MultiplyRow(&x[first], product);
  return product;
}

std::vector<double> PackedWeight::Reach(const std::vector<double>& sizes) const {
  std::vector<double> reach;
  for (int64_t i = 0; i < n_; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < k_; ++j) sum += std::abs(values_[i * k_ + j]) * sizes[j];
    reach.push_back(sum * scales_[i]);
  }
  return reach;
}

void PackedWeight::MultiplyRow(const float* x, Product& product) const {
  const bool quantized = kind_.x_quantization == kHeddleCudaQuantizeX;
  const auto is_inlier = [&](float value) { return quantized && std::abs(value) < kind_.outlier_threshold; };
  float largest = 0;
  for (int64_t j = 0; j < k_; ++j) {
    if (is_inlier(x[j])) largest = std::max(largest, std::abs(x[j]));
  }
  const float inverse = 127.0f / largest;
  std::vector<double> integers(static_cast<size_t>(k_), 0.0);
  std::vector<double> floats(static_cast<size_t>(k_), 0.0);
  for (int64_t j = 0; j < k_; ++j) {
    if (!is_inlier(x[j])) {
      floats[j] = x[j];
    } else if (std::isfinite(inverse)) {
      integers[j] = std::nearbyint(x[j] * inverse);
    }
  }
  for (int64_t i = 0; i < n_; ++i) {
    double integer_sum = 0;
    double sum = 0;
    double size = 0;
    for (int64_t j = 0; j < k_; ++j) {
      const double value = values_[i * k_ + j];
      integer_sum += integers[j] * value;
      sum += floats[j] * value;
      size += std::abs(floats[j] * value);
    }
    const double inliers = static_cast<float>(integer_sum) * static_cast<double>(largest / 127.0f);
    product.y.push_back((inliers + sum) * scales_[i]);
    // Sums of integers are exact. Tensor cores cut where others round, so that errors of a long sum all go one way.
    product.error.push_back((std::ldexp(std::abs(inliers) + std::abs(sum), -22) + 2e-6 * size) * scales_[i]);
  }
}

}  // namespace heddle::test
