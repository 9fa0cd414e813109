#include "packed_weights_testing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kXDTypes[] = {kHeddleCudaFloat16, kHeddleCudaBFloat16};
constexpr int64_t kMaxRows = 8;
constexpr int64_t kZeroRow = 2;

int64_t Padded(int64_t size, int64_t multiple, int64_t gap) {
  return (size + multiple - 1) / multiple * multiple + gap;
}
int64_t XStride(int64_t k) { return Padded(k, 8, 8); }

// [rows, size] with `stride` elements between rows and `gap` in what lies between.
template <typename T>
std::vector<T> WithGaps(const std::vector<T>& values, int64_t rows, int64_t size, int64_t stride, T gap) {
  std::vector<T> padded(static_cast<size_t>(rows * stride), gap);
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(values.begin() + row * size, size, padded.begin() + row * stride);
  }
  return padded;
}

// Rows of x, [kMaxRows, k], one of them zero.
std::vector<float> RandomX(HeddleCudaDType dtype, int64_t k) {
  std::vector<float> x = Rounded(dtype, RandomFloats(static_cast<size_t>(kMaxRows * k), 1));
  std::fill_n(x.begin() + kZeroRow * k, k, 0.0f);
  return x;
}

std::vector<float> Head(const std::vector<float>& values, int64_t count) {
  return {values.begin(), values.begin() + count};
}

DeviceArray XOnDevice(TestStream& stream, HeddleCudaDType dtype, const std::vector<float>& x, int64_t rows, int64_t k) {
  return DeviceArray::From(stream, dtype, WithGaps(x, rows, k, XStride(k), std::numeric_limits<float>::quiet_NaN()));
}

std::string NameOfProduct(const PackedWeight& weight, HeddleCudaDType dtype, int64_t rows) {
  return weight.kind().Name() + " " + NameOf(dtype) + " [" + std::to_string(rows) + ", " + std::to_string(weight.k()) +
         "] x [" + std::to_string(weight.n()) + ", " + std::to_string(weight.k()) + "]^T";
}

struct Call {
  HeddleCudaDType y_dtype = kF32;
  const float* bias = nullptr;
  bool in_graph = false;
};

// Of what lies at `x_data`, [rows, k] in XStride.
std::vector<float> Multiply(TestStream& stream, const PackedWeight& weight, HeddleCudaDType dtype, void* x_data,
                            int64_t rows, const Call& call = {}) {
  const int64_t stride = Padded(weight.n(), 8, 8);
  const DeviceArray y = DeviceArray::Poisoned(stream, call.y_dtype, static_cast<size_t>((rows + 1) * stride));
  const HeddleCudaMatmul op = {.x = {x_data, dtype, rows, weight.k(), XStride(weight.k())},
                               .weight = weight.Get(),
                               .bias = call.bias,
                               .y = Matrix(y, call.y_dtype, rows, weight.n(), stride)};
  const std::string name = NameOfProduct(weight, dtype, rows);
  HeddleCudaGraph* graph = nullptr;
  if (call.in_graph) MustSucceed(Api().capture_begin(stream.get()), "capture_begin");
  MustSucceed(Api().matmul(stream.get(), &op), name.c_str());
  if (call.in_graph) {
    MustSucceed(Api().capture_end(stream.get(), &graph), "capture_end");
    MustSucceed(Api().graph_launch(stream.get(), graph), "graph_launch");
  }
  const std::vector<float> all = y.ToHost();
  if (call.in_graph) MustSucceed(Api().graph_destroy(graph), "graph_destroy");
  if (!GapsAreNaN(all, rows, weight.n(), stride)) Fail(__FILE__, __LINE__, name + " wrote into a gap");
  return RowsOf(all, rows, weight.n(), stride);
}

// Between numbers of this type around x.
double Unit(HeddleCudaDType dtype, double x) {
  const int bits = dtype == kHeddleCudaBFloat16 ? 7 : dtype == kHeddleCudaFloat16 ? 10 : 23;
  // float16's least distance.
  return std::max(std::ldexp(1.0, std::ilogb(x) - bits), dtype == kHeddleCudaFloat16 ? std::ldexp(1.0, -24) : 0.0);
}

// The first of `expected` and `error` are those of `actual`, which was rounded to `dtype` besides.
void ExpectWithin(const std::vector<float>& actual, const std::vector<double>& expected,
                  const std::vector<double>& error, HeddleCudaDType dtype, const std::string& name) {
  for (size_t i = 0; i < actual.size(); ++i) {
    const double allowed = error[i] + 0.52 * Unit(dtype, std::abs(expected[i]) + error[i]);
    if (std::abs(actual[i] - expected[i]) <= allowed) continue;
    Fail(__FILE__, __LINE__,
         name + ": y[" + std::to_string(i) + "] is " + Show(actual[i]) + ", not " + Show(expected[i]) + " +- " +
             Show(allowed));
    return;
  }
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double Activate(HeddleCudaActivation activation, double x) {
  if (activation == kHeddleCudaSilu) return x / (1 + std::exp(-x));
  if (activation == kHeddleCudaGelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

struct Sizes {
  int64_t n, k;
};

// Odd ones, and rows of x that do not stay in shared memory, all of them or any.
std::vector<Sizes> SizesFor(const PackedWeight::Kind& kind) {
  if (kind.sparse)
    return {{1, 8}, {7, 24}, {16, 264}, {100, 1048}, {20, 2056}, {2113, 136}, {33, 4104}, {40, 14336}, {17, 60008}};
  return {{1, 1}, {7, 8}, {16, 63}, {100, 1032}, {20, 2056}, {2113, 136}, {33, 4104}, {40, 14336}, {17, 60008}};
}

}  // namespace

std::string PackedWeight::Kind::Name() const {
  std::string name = std::string(sparse ? "2:4 " : "") + (int8 ? "int8" : "");
  if (x_quantization == kHeddleCudaQuantizeX) name += ", outliers from " + Show(outlier_threshold);
  return name;
}

PackedWeight::PackedWeight(TestStream& stream, HeddleCudaDType dtype, Kind kind, int64_t n, int64_t k, float deviation)
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
        DeviceArray::Bytes(stream, WithGaps<uint8_t>(metadata, n, k / 8, Padded(k / 8, 16, 16), 0xff)));
  }

  const int64_t size = kind.sparse ? k / 2 : k;
  if (kind.int8) {
    std::vector<uint8_t> values;
    for (const float value : stored) values.push_back(static_cast<uint8_t>(static_cast<int8_t>(value)));
    values_on_device_.emplace(
        DeviceArray::Bytes(stream, WithGaps<uint8_t>(values, n, size, Padded(size, 16, 16), 0x7f)));
    scales_on_device_.emplace(DeviceArray::From(stream, kF32, scales_));
  } else {
    values_on_device_.emplace(DeviceArray::From(
        stream, dtype, WithGaps(stored, n, size, Padded(size, 8, 8), std::numeric_limits<float>::quiet_NaN())));
  }
}

HeddleCudaWeight PackedWeight::Get() const {
  const int64_t size = kind_.sparse ? k_ / 2 : k_;
  const int64_t stride = kind_.int8 ? Padded(size, 16, 16) : Padded(size, 8, 8);
  return {.values = Matrix(*values_on_device_, values_dtype_, n_, size, stride),
          .scales = kind_.int8 ? scales_on_device_->As<float>() : nullptr,
          .metadata = kind_.sparse ? metadata_on_device_->As<uint8_t>() : nullptr,
          .metadata_stride = kind_.sparse ? Padded(k_ / 8, 16, 16) : 0,
          .x_quantization = kind_.x_quantization,
          .outlier_threshold = kind_.outlier_threshold};
}

PackedWeight::Product PackedWeight::Multiply(const std::vector<float>& x) const {
  Product product;
  for (size_t first = 0; first < x.size(); first += static_cast<size_t>(k_)) MultiplyRow(&x[first], product);
  return product;
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

void ExpectPackedProducts(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  for (const HeddleCudaDType dtype : kXDTypes) {
    for (const PackedWeight::Kind& kind : kinds) {
      for (const auto& [n, k] : SizesFor(kind)) {
        const PackedWeight weight(stream, dtype, kind, n, k);
        const std::vector<float> x = RandomX(dtype, k);
        const DeviceArray x_on_device = XOnDevice(stream, dtype, x, kMaxRows, k);
        const std::vector<float> bias = RandomFloats(static_cast<size_t>(n), 3);
        const DeviceArray bias_on_device = DeviceArray::From(stream, kF32, bias);
        const PackedWeight::Product expected = weight.Multiply(x);
        PackedWeight::Product with_bias = expected;
        for (size_t i = 0; i < with_bias.y.size(); ++i) {
          with_bias.error[i] += std::ldexp(std::abs(with_bias.y[i]), -23);
          with_bias.y[i] += bias[i % n];
        }
        for (int64_t rows = 1; rows <= kMaxRows; ++rows) {
          const std::string name = NameOfProduct(weight, dtype, rows);
          const auto multiply = [&](HeddleCudaDType y_dtype, const float* added) {
            return Multiply(stream, weight, dtype, x_on_device.data(), rows, {.y_dtype = y_dtype, .bias = added});
          };
          ExpectWithin(multiply(kF32, nullptr), expected.y, expected.error, kF32, name);
          ExpectWithin(multiply(dtype, nullptr), expected.y, expected.error, dtype, name);
          ExpectWithin(multiply(kF32, bias_on_device.As<float>()), with_bias.y, with_bias.error, kF32,
                       name + " with a bias");
        }
      }
    }
  }
}

void ExpectPackedGatedProducts(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  for (const HeddleCudaDType dtype : kXDTypes) {
    for (const PackedWeight::Kind& kind : kinds) {
      for (const auto& [size, k] : {Sizes{1, 8}, Sizes{7, 160}, Sizes{63, 520}, Sizes{1024, 64}, Sizes{56, 4104}}) {
        // Sums of deviation 1, where activations bend.
        const PackedWeight weight(stream, dtype, kind, 2 * size, k, 1 / std::sqrt(static_cast<float>(k)));
        const std::vector<float> x = RandomX(dtype, k);
        const DeviceArray x_on_device = XOnDevice(stream, dtype, x, kMaxRows, k);
        const std::vector<float> bias = RandomFloats(static_cast<size_t>(2 * size), 3);
        const DeviceArray bias_on_device = DeviceArray::From(stream, kF32, bias);
        const PackedWeight::Product sums = weight.Multiply(x);
        for (const HeddleCudaActivation activation : {kHeddleCudaSilu, kHeddleCudaGeluTanh, kHeddleCudaGelu}) {
          for (const bool with_bias : {false, true}) {
            std::vector<double> expected;
            std::vector<double> error;
            for (int64_t i = 0; i < kMaxRows * size; ++i) {
              const auto at = [&](int64_t half) { return i / size * 2 * size + half * size + i % size; };
              const auto sum = [&](int64_t half) {
                return sums.y[at(half)] + (with_bias ? bias[half * size + i % size] : 0.0f);
              };
              const double gate = Activate(activation, sum(0));
              expected.push_back(gate * sum(1));
              error.push_back(1.2 * sums.error[at(0)] * std::abs(sum(1)) + sums.error[at(1)] * std::abs(gate) +
                              1e-5 * (std::abs(expected.back()) + std::abs(sum(1))));
            }
            for (int64_t rows = 1; rows <= kMaxRows; ++rows) {
              const int64_t stride = Padded(size, 8, 8);
              const DeviceArray y = DeviceArray::Poisoned(stream, dtype, static_cast<size_t>((rows + 1) * stride));
              const HeddleCudaGatedMatmul op = {.x = Matrix(x_on_device, dtype, rows, k, XStride(k)),
                                                .gate_up = weight.Get(),
                                                .bias = with_bias ? bias_on_device.As<float>() : nullptr,
                                                .activation = activation,
                                                .y = Matrix(y, dtype, rows, size, stride)};
              const std::string name = NameOfProduct(weight, dtype, rows) + " gated";
              MustSucceed(Api().gated_matmul(stream.get(), &op), name.c_str());
              const std::vector<float> all = y.ToHost();
              if (!GapsAreNaN(all, rows, size, stride)) Fail(__FILE__, __LINE__, name + " wrote into a gap");
              ExpectWithin(RowsOf(all, rows, size, stride), expected, error, dtype, name);
            }
          }
        }
      }
    }
  }
}

void ExpectPackedRowsAlone(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  for (const HeddleCudaDType dtype : kXDTypes) {
    for (const PackedWeight::Kind& kind : kinds) {
      for (const auto& [n, k] : {Sizes{100, 520}, Sizes{2113, 4104}, Sizes{40, 14336}}) {
        const PackedWeight weight(stream, dtype, kind, n, k);
        std::vector<float> x = RandomX(dtype, k);
        // Rows beside it have other scales and other outliers.
        for (int64_t i = 3 * k; i < kMaxRows * k; ++i) x[i] *= 16;
        const DeviceArray x_on_device = XOnDevice(stream, dtype, x, kMaxRows, k);
        const std::vector<float> all = Multiply(stream, weight, dtype, x_on_device.data(), kMaxRows);
        const std::vector<float> in_graph =
            Multiply(stream, weight, dtype, x_on_device.data(), kMaxRows, {.in_graph = true});
        EXPECT_TRUE(SameBits(all, in_graph));
        for (const int64_t row : {int64_t{0}, int64_t{1}, int64_t{5}}) {
          for (const int64_t rows : {int64_t{1}, int64_t{3}}) {
            const auto from = x_on_device.As<uint16_t>() + row * XStride(k);
            const std::vector<float> some = Multiply(stream, weight, dtype, from, rows);
            EXPECT_TRUE(SameBits(Head(some, n), {all.begin() + row * n, all.begin() + (row + 1) * n}));
          }
        }
      }
    }
  }
}

void ExpectPackedNotFinite(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  constexpr int64_t kN = 40;
  constexpr int64_t kK = 136;
  for (const HeddleCudaDType dtype : kXDTypes) {
    for (const PackedWeight::Kind& kind : kinds) {
      const PackedWeight weight(stream, dtype, kind, kN, kK);
      std::vector<float> x = RandomX(dtype, kK);
      const std::vector<float> clean =
          Multiply(stream, weight, dtype, XOnDevice(stream, dtype, x, kMaxRows, kK).data(), kMaxRows);
      // 2:4 weights take in only half of a row's columns.
      std::fill_n(x.begin() + kK, kK, std::numeric_limits<float>::quiet_NaN());
      std::fill_n(x.begin() + 4 * kK, kK, -std::numeric_limits<float>::infinity());
      const std::vector<float> y =
          Multiply(stream, weight, dtype, XOnDevice(stream, dtype, x, kMaxRows, kK).data(), kMaxRows);
      for (int64_t i = 0; i < kMaxRows * kN; ++i) {
        if (i / kN == 1 || i / kN == 4) {
          const bool spoiled = kind.x_quantization == kHeddleCudaQuantizeX ? std::isnan(y[i]) : !std::isfinite(y[i]);
          EXPECT_TRUE(spoiled);
        } else {
          EXPECT_EQ(y[i], clean[i]);
        }
      }
      // One alone is enough for a row that is quantised, whatever the weights beside it are.
      if (kind.x_quantization != kHeddleCudaQuantizeX) continue;
      x = RandomX(dtype, kK);
      x[3] = std::numeric_limits<float>::infinity();
      const std::vector<float> one = Multiply(stream, weight, dtype, XOnDevice(stream, dtype, x, 1, kK).data(), 1);
      for (const float value : one) EXPECT_TRUE(std::isnan(value));
    }
  }
}

void ExpectPackedInOrder(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  constexpr int64_t kSize = 2048;
  constexpr int kLinks = 20;
  const float deviation = 1 / std::sqrt(static_cast<float>(kSize));
  for (const PackedWeight::Kind& kind : kinds) {
    for (const int64_t rows : {int64_t{1}, kMaxRows}) {
      const HeddleCudaDType dtype = kHeddleCudaBFloat16;
      const PackedWeight weight(stream, dtype, kind, kSize, kSize, deviation);
      const DeviceArray x = DeviceArray::From(stream, dtype, RandomX(dtype, kSize));
      const auto run = [&](bool wait) {
        const DeviceArray y = DeviceArray::Poisoned(stream, dtype, static_cast<size_t>((kLinks + 1) * rows * kSize));
        const int64_t step_bytes = rows * kSize * 2;
        MustSucceed(Api().copy(stream.get(), y.data(), x.data(), step_bytes), "copy");
        for (int link = 0; link < kLinks; ++link) {
          const HeddleCudaMatrix from = {y.As<char>() + link * step_bytes, dtype, rows, kSize, kSize};
          const HeddleCudaMatrix to = {y.As<char>() + (link + 1) * step_bytes, dtype, rows, kSize, kSize};
          const HeddleCudaMatmul op = {.x = from, .weight = weight.Get(), .bias = nullptr, .y = to};
          MustSucceed(Api().matmul(stream.get(), &op), "matmul");
          if (wait) stream.Synchronize();
        }
        return y.ToHost();
      };
      const std::vector<float> expected = run(true);
      for (int repeat = 0; repeat < 5; ++repeat) EXPECT_TRUE(SameBits(run(false), expected));
    }
  }
}

}  // namespace heddle::test
