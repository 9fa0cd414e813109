#include "packed_weights_testing.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kXDTypes[] = {kHeddleCudaFloat16, kHeddleCudaBFloat16};
constexpr int64_t kMaxRows = 8;
constexpr int64_t kZeroRow = 2;
constexpr float kNotFinite[] = {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};

int64_t XStride(int64_t k) { return PaddedSize(k, 8, 8); }

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
  const int64_t stride = PaddedSize(weight.n(), 8, 8);
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

// Between numbers of this type around x. Zero is not rounded.
double Unit(HeddleCudaDType dtype, double x) {
  if (x == 0) return 0;
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

// A row that goes in as heddle_cuda.h says of one that is alone, all of it by one power of two, no less than 2^-96.
// Parts with lesser ones have multiples between these, and lose less.
std::vector<float> NearestMultiples(const std::vector<float>& x) {
  float largest = 0;
  for (const float value : x) largest = std::max(largest, std::abs(value));
  const int unit = std::max(std::ilogb(largest), -96) - 21;
  std::vector<float> nearest;
  for (const float value : x) nearest.push_back(std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit));
  return nearest;
}

// One row of x by such a weight is, unless it is too long or does not end on 16 bytes.
bool IsMultipliedAsDigits(const PackedWeight& weight) {
  const PackedWeight::Kind& kind = weight.kind();
  return kind.int8 && kind.x_quantization == kHeddleCudaKeepX && weight.k() <= 16384 && weight.k() % 8 == 0;
}

// One element that is not finite makes all of a row NaN that is quantised, or alone and multiplied as digits, whatever
// it is multiplied by. It is where units of 16 bytes and pieces of 16 columns begin and end.
void ExpectOneSpoilsAll(TestStream& stream, const PackedWeight& weight, HeddleCudaDType dtype) {
  const int64_t k = weight.k();
  const std::vector<float> clean = Head(RandomX(dtype, k), k);
  for (const float value : kNotFinite) {
    for (const int64_t column : {int64_t{0}, int64_t{7}, int64_t{15}, int64_t{16}, k - 1}) {
      std::vector<float> x = clean;
      x[column] = value;
      const DeviceArray x_on_device = XOnDevice(stream, dtype, x, 1, k);
      const std::vector<float> y = Multiply(stream, weight, dtype, x_on_device.data(), 1);
      if (std::all_of(y.begin(), y.end(), [](float element) { return std::isnan(element); })) continue;
      Fail(__FILE__, __LINE__,
           NameOfProduct(weight, dtype, 1) + ": " + Show(value) + " in column " + std::to_string(column) +
               " left what is no NaN");
    }
  }
}

}  // namespace

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
              const int64_t stride = PaddedSize(size, 8, 8);
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
      std::vector<Sizes> sizes = {{100, 520}, {2113, 4104}, {40, 14336}, {17, 60008}};
      if (!kind.sparse) sizes.push_back({100, 1033});
      for (const auto& [n, k] : sizes) {
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
          const auto from = x_on_device.As<uint16_t>() + row * XStride(k);
          const auto first_of = [&](int64_t rows, bool graph) {
            return Head(Multiply(stream, weight, dtype, from, rows, {.in_graph = graph}), n);
          };
          const std::vector<float> among_all = {all.begin() + row * n, all.begin() + (row + 1) * n};
          const std::vector<float> alone = first_of(1, false);
          EXPECT_TRUE(SameBits(first_of(3, false), among_all));
          EXPECT_TRUE(SameBits(first_of(1, true), alone));
          if (!IsMultipliedAsDigits(weight)) {
            EXPECT_TRUE(SameBits(alone, among_all));
          } else if (k == 4104) {
            // Sums of all columns have more bits than a float. Those of digits are rounded a few times at their end,
            // others after every few products, so that a third of the outputs or more differ.
            EXPECT_TRUE(!SameBits(alone, among_all));
          }
        }
      }
    }
  }
}

void ExpectPackedMagnitudes(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  constexpr int64_t kN = 40;
  constexpr int64_t kK = 4104;
  for (const HeddleCudaDType dtype : kXDTypes) {
    const int most = dtype == kHeddleCudaFloat16 ? 7 : 90;
    for (const PackedWeight::Kind& kind : kinds) {
      const PackedWeight weight(stream, dtype, kind, kN, kK);
      const std::vector<float> random = RandomX(dtype, kK);
      for (const int exponent : {-most, most}) {
        std::vector<float> x;
        for (const float value : random) x.push_back(std::ldexp(value, exponent));
        // A few that are much larger than others.
        for (int64_t i = 5; i < kMaxRows * kK; i += 333) x[i] *= 64;
        x = Rounded(dtype, x);
        const PackedWeight::Product expected = weight.Multiply(x);
        for (const int64_t rows : {int64_t{1}, int64_t{2}, kMaxRows}) {
          const DeviceArray x_on_device = XOnDevice(stream, dtype, x, kMaxRows, kK);
          ExpectWithin(Multiply(stream, weight, dtype, x_on_device.data(), rows), expected.y, expected.error, kF32,
                       NameOfProduct(weight, dtype, rows) + " times 2^" + std::to_string(exponent));
        }
      }
    }
  }
}

void ExpectPackedOutlier(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  for (const HeddleCudaDType dtype : kXDTypes) {
    for (const PackedWeight::Kind& kind : kinds) {
      // The fewer columns, the less do errors cancel each other.
      for (const auto& [n, k] : {Sizes{500, 16}, Sizes{200, 136}, Sizes{40, 4104}, Sizes{40, 14336}}) {
        const int64_t outlier = k * 2 / 3;
        const PackedWeight weight(stream, dtype, kind, n, k, 1, outlier);
        for (const int exponent : {12, 15}) {
          std::vector<float> x = Head(RandomX(dtype, k), k);
          x[outlier] = std::ldexp(-1.5f, exponent);
          const std::vector<float> nearest = NearestMultiples(x);
          std::vector<double> lost;
          for (int64_t j = 0; j < k; ++j) lost.push_back(std::abs(double{x[j]} - nearest[j]));
          PackedWeight::Product expected = weight.Multiply(x);
          const std::vector<double> reach = weight.Reach(lost);
          for (int64_t i = 0; i < n; ++i) expected.error[i] += reach[i];
          const DeviceArray x_on_device = XOnDevice(stream, dtype, x, 1, k);
          ExpectWithin(Multiply(stream, weight, dtype, x_on_device.data(), 1), expected.y, expected.error, kF32,
                       NameOfProduct(weight, dtype, 1) + " beside 2^" + std::to_string(exponent));
        }
      }
    }
  }
}

void ExpectPackedTinyRow(const std::vector<PackedWeight::Kind>& kinds) {
  TestStream stream;
  constexpr HeddleCudaDType kDType = kHeddleCudaBFloat16;
  for (const PackedWeight::Kind& kind : kinds) {
    for (const auto& [n, k] : {Sizes{40, 136}, Sizes{40, 4104}}) {
      // Scales so large that no output is a subnormal number.
      const PackedWeight weight(stream, kDType, kind, n, k, 74);
      // Elements of thousands of times 2^-117, of a few times that, and of less than half of it.
      for (const int exponent : {-105, -118, -121}) {
        std::vector<float> x = Head(RandomX(kDType, k), k);
        for (float& value : x) value = std::ldexp(value, exponent);
        const PackedWeight::Product expected = weight.Multiply(NearestMultiples(x));
        const DeviceArray x_on_device = XOnDevice(stream, kDType, x, 1, k);
        ExpectWithin(Multiply(stream, weight, kDType, x_on_device.data(), 1), expected.y, expected.error, kF32,
                     NameOfProduct(weight, kDType, 1) + " times 2^" + std::to_string(exponent));
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
      if (kind.int8) {
        for (const int64_t width : {kK, int64_t{4104}, int64_t{14336}}) {
          ExpectOneSpoilsAll(stream, PackedWeight(stream, dtype, kind, kN, width), dtype);
        }
        continue;
      }
      for (const float value : kNotFinite) {
        const std::vector<float> row(kK, value);
        const std::vector<float> alone =
            Multiply(stream, weight, dtype, XOnDevice(stream, dtype, row, 1, kK).data(), 1);
        for (const float element : alone) EXPECT_TRUE(!std::isfinite(element));
      }
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
