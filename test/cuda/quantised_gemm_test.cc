// Products with int8 and 2:4 weights of 9 rows of x and more, against the numbers that heddle_cuda.h promises.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kTypes[] = {kHeddleCudaBFloat16, kHeddleCudaFloat16};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kMaxRows = 600;

int64_t Padded(int64_t size, int64_t multiple) { return (size / multiple + 2) * multiple; }

std::vector<int64_t> FirstRows(int64_t count) {
  std::vector<int64_t> rows(count);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

struct Kind {
  const char* name;
  bool int8;
  bool sparse;
  HeddleCudaXQuantization x_quantization = kHeddleCudaKeepX;
  float threshold = 0;
};
constexpr Kind kW8A8 = {"w8a8", true, false, kHeddleCudaQuantizeX, kInfinity};

constexpr Kind kInt8 = {"int8", true, false};
// Every third element is an outlier, or one of a thousand.
constexpr Kind kManyOutliers = {"llm-int8, many outliers", true, false, kHeddleCudaQuantizeX, 1};
constexpr Kind kSparse = {"2:4", false, true};
constexpr Kind kSparseInt8 = {"2:4 int8", true, true};
constexpr Kind kSparseW8A8 = {"2:4 w8a8", true, true, kHeddleCudaQuantizeX, kInfinity};
constexpr Kind kSparseOutliers = {"2:4 llm-int8", true, true, kHeddleCudaQuantizeX, 2};
constexpr Kind kFewOutliers = {"llm-int8", true, false, kHeddleCudaQuantizeX, 3.3f};

// A weight, on the device with gaps between rows, and x.
class Operands {
 public:
  Operands(TestStream& stream, const Kind& kind, HeddleCudaDType dtype, int64_t n, int64_t k, uint64_t seed = 1)
      : kind_(kind),
        dtype_(dtype),
        n_(n),
        k_(k),
        x_(Rounded(dtype, RandomFloats(kMaxRows * k, seed))),
        bias_(RandomFloats(n, seed + 1)),
        bias_on_device_(DeviceArray::From(stream, kF32, bias_)),
        weight_(n * k) {
    std::mt19937_64 random(seed + 2);
    for (int64_t i = 0; i < n; ++i) scales_.push_back(static_cast<float>(random() % 1000 + 1) * 1e-4f);
    scales_on_device_.push_back(DeviceArray::From(stream, kF32, scales_));
    MakeWeight(stream, random);
    UploadX(stream);
  }

  HeddleCudaMatrix X(int64_t rows) const { return Matrix(x_on_device_[0], dtype_, rows, k_, Padded(k_, 8)); }
  HeddleCudaWeight Weight() const {
    const int64_t size = kind_.sparse ? k_ / 2 : k_;
    return {.values = {values_on_device_[0].data(), kind_.int8 ? kHeddleCudaInt8 : dtype_, n_, size, Padded(size, 16)},
            .scales = kind_.int8 ? scales_on_device_[0].As<float>() : nullptr,
            .metadata = kind_.sparse ? values_on_device_[1].As<uint8_t>() : nullptr,
            .metadata_stride = kind_.sparse ? Padded(k_ / 8, 16) : 0,
            .x_quantization = kind_.x_quantization,
            .outlier_threshold = kind_.threshold};
  }
  const float* Bias() const { return bias_on_device_.As<float>(); }
  const std::vector<float>& bias() const { return bias_; }
  HeddleCudaDType dtype() const { return dtype_; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  std::string Name(int64_t rows) const {
    return std::string(kind_.name) + " " + NameOf(dtype_) + " [" + std::to_string(rows) + ", " + std::to_string(k_) +
           "] x [" + std::to_string(n_) + ", " + std::to_string(k_) + "]^T";
  }

  void SetX(TestStream& stream, int64_t row, int64_t column, float value) {
    x_[row * k_ + column] = value;
    UploadX(stream);
  }

  // Makes outliers of 6 or more of the elements at `is_outlier(row, column)`, and of no others.
  template <typename Body>
  void PlaceOutliers(TestStream& stream, const Body& is_outlier) {
    for (int64_t i = 0; i < kMaxRows * k_; ++i) {
      const float outlier = i % 2 == 0 ? 20.0f : -6.0f;
      x_[i] = is_outlier(i / k_, i % k_) ? outlier : std::clamp(x_[i], -5.0f, 5.0f);
    }
    UploadX(stream);
  }

  // Of rows [0, rows).
  std::vector<double> Expected(int64_t rows) const { return Expected(FirstRows(rows)); }
  std::vector<double> Expected(const std::vector<int64_t>& rows) const {
    std::vector<double> y;
    std::vector<double> whole(k_), rest(k_);
    for (const int64_t row : rows) {
      const double factor = SplitX(&x_[row * k_], whole, rest);
      for (int64_t i = 0; i < n_; ++i) {
        double sum = 0, outliers = 0;
        for (int64_t j = 0; j < k_; ++j) sum += whole[j] * weight_[i * k_ + j];
        if (kind_.threshold != kInfinity) {
          for (int64_t j = 0; j < k_; ++j) outliers += rest[j] * weight_[i * k_ + j];
        }
        y.push_back((sum * factor + outliers) * (kind_.int8 ? double{scales_[i]} : 1.0));
      }
    }
    return y;
  }

 private:
  // x = whole * factor + rest, as the contract has it.
  double SplitX(const float* x, std::vector<double>& whole, std::vector<double>& rest) const {
    std::fill(rest.begin(), rest.end(), 0.0);
    std::copy(x, x + k_, whole.begin());
    if (kind_.x_quantization == kHeddleCudaKeepX) return 1;
    float largest = 0;
    for (int64_t j = 0; j < k_; ++j) {
      if (!std::isfinite(x[j])) return kNaN;
      if (std::fabs(x[j]) < kind_.threshold) largest = std::max(largest, std::fabs(x[j]));
    }
    const float inverse = std::isinf(127.0f / largest) ? 0.0f : 127.0f / largest;
    for (int64_t j = 0; j < k_; ++j) {
      const bool outlier = !(std::fabs(x[j]) < kind_.threshold);
      whole[j] = outlier ? 0 : std::nearbyint(x[j] * inverse);
      if (outlier) rest[j] = x[j];
    }
    return largest / 127.0f;
  }

  void UploadX(TestStream& stream) {
    const int64_t stride = Padded(k_, 8);
    std::vector<float> padded(kMaxRows * stride, kNaN);
    for (int64_t row = 0; row < kMaxRows; ++row) std::copy_n(&x_[row * k_], k_, &padded[row * stride]);
    x_on_device_.clear();
    x_on_device_.push_back(DeviceArray::From(stream, dtype_, padded));
  }

  void MakeWeight(TestStream& stream, std::mt19937_64& random) {
    if (kind_.int8) {
      for (float& value : weight_) value = static_cast<float>(static_cast<int>(random() % 256) - 128);
    } else {
      weight_ = Rounded(dtype_, RandomFloats(n_ * k_, random()));
    }
    const int64_t size = kind_.sparse ? k_ / 2 : k_;
    const int64_t stride = Padded(size, 16);
    std::vector<float> values(n_ * stride, kind_.int8 ? 77.0f : kNaN);
    std::vector<uint8_t> metadata(n_ * Padded(k_ / 8, 16), 0xff);
    for (int64_t i = 0; i < n_; ++i) {
      if (!kind_.sparse) {
        std::copy_n(&weight_[i * k_], k_, &values[i * stride]);
        continue;
      }
      uint8_t* const nibbles = &metadata[i * Padded(k_ / 8, 16)];
      for (int64_t group = 0; group < k_ / 4; ++group) {
        constexpr int kPairs[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};
        const auto& pair = kPairs[random() % 6];
        for (int j = 0; j < 4; ++j) {
          if (j != pair[0] && j != pair[1]) weight_[i * k_ + group * 4 + j] = 0;
        }
        for (int j = 0; j < 2; ++j) values[i * stride + group * 2 + j] = weight_[i * k_ + group * 4 + pair[j]];
        const auto nibble = static_cast<uint8_t>(pair[0] | pair[1] << 2);
        nibbles[group / 2] = group % 2 == 0 ? nibble : static_cast<uint8_t>(nibbles[group / 2] | nibble << 4);
      }
    }
    if (kind_.int8) {
      std::vector<uint8_t> bytes;
      for (const float value : values) bytes.push_back(static_cast<uint8_t>(static_cast<int8_t>(value)));
      values_on_device_.push_back(DeviceArray::Bytes(stream, bytes));
    } else {
      values_on_device_.push_back(DeviceArray::From(stream, dtype_, values));
    }
    values_on_device_.push_back(DeviceArray::Bytes(stream, metadata));
  }

  Kind kind_;
  HeddleCudaDType dtype_;
  int64_t n_, k_;
  std::vector<float> x_, bias_, scales_;
  DeviceArray bias_on_device_;
  std::vector<float> weight_;  // whole, without its scales
  std::vector<DeviceArray> scales_on_device_, x_on_device_, values_on_device_;
};

std::vector<float> Matmul(TestStream& stream, const Operands& operands, int64_t rows, HeddleCudaDType y_dtype,
                          bool with_bias = false) {
  const int64_t stride = Padded(operands.n(), 8);
  const DeviceArray y = DeviceArray::Poisoned(stream, y_dtype, static_cast<size_t>((rows + 1) * stride));
  const HeddleCudaMatmul op = {.x = operands.X(rows),
                               .weight = operands.Weight(),
                               .bias = with_bias ? operands.Bias() : nullptr,
                               .y = Matrix(y, y_dtype, rows, operands.n(), stride)};
  MustSucceed(Api().matmul(stream.get(), &op), operands.Name(rows).c_str());
  const std::vector<float> all = y.ToHost();
  if (!GapsAreNaN(all, rows, operands.n(), stride)) Fail(__FILE__, __LINE__, operands.Name(rows) + " wrote into a gap");
  return RowsOf(all, rows, operands.n(), stride);
}

std::vector<float> GatedMatmul(TestStream& stream, const Operands& operands, int64_t rows,
                               HeddleCudaActivation activation, bool with_bias) {
  const int64_t size = operands.n() / 2;
  const int64_t stride = Padded(size, 8);
  const DeviceArray y = DeviceArray::Poisoned(stream, operands.dtype(), static_cast<size_t>((rows + 1) * stride));
  const HeddleCudaGatedMatmul op = {.x = operands.X(rows),
                                    .gate_up = operands.Weight(),
                                    .bias = with_bias ? operands.Bias() : nullptr,
                                    .activation = activation,
                                    .y = Matrix(y, operands.dtype(), rows, size, stride)};
  MustSucceed(Api().gated_matmul(stream.get(), &op), operands.Name(rows).c_str());
  const std::vector<float> all = y.ToHost();
  if (!GapsAreNaN(all, rows, size, stride)) Fail(__FILE__, __LINE__, operands.Name(rows) + " wrote into a gap");
  return RowsOf(all, rows, size, stride);
}

double Activate(HeddleCudaActivation activation, double x) {
  if (activation == kHeddleCudaSilu) return x / (1 + std::exp(-x));
  if (activation == kHeddleCudaGelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

// Of as many as `actual` has.
void ExpectClose(const std::vector<float>& actual, std::vector<double> expected, double tolerance,
                 const std::string& name) {
  expected.resize(actual.size());
  const double error = RelativeError(actual, expected);
  if (!(error <= tolerance)) Fail(__FILE__, __LINE__, name + ": error " + Show(error));
}

struct Sizes {
  int64_t n, k;
};
constexpr Sizes kSizes[] = {{1, 16},     {7, 8},     {8, 40},      {63, 160},   {160, 64},  {1100, 136},
                            {4104, 160}, {33, 4104}, {1100, 1024}, {63, 14336}, {5003, 136}};
constexpr int64_t kRows[] = {9, 15, 16, 17, 31, 32, 33, 57, 64, 65, 127, 128, 129, 256, 257, 300, 513};

void ExpectProducts(const Kind& kind) {
  TestStream stream;
  for (const HeddleCudaDType dtype : kTypes) {
    for (const auto& [n, k] : kSizes) {
      const Operands operands(stream, kind, dtype, n, k);
      const int64_t most = n * k > 200000 ? 130 : 513;
      const std::vector<double> expected = operands.Expected(most);
      for (const int64_t m : kRows) {
        if (m > most) continue;
        const double tolerance = kind.threshold == kInfinity ? 1e-6 : 3 * Tolerance(kF32);
        ExpectClose(Matmul(stream, operands, m, kF32), expected, tolerance, operands.Name(m));
        ExpectClose(Matmul(stream, operands, m, dtype), expected, Tolerance(dtype), operands.Name(m));
      }
    }
  }
}

void ExpectBias(const Kind& kind) {
  TestStream stream;
  const Operands operands(stream, kind, kHeddleCudaBFloat16, 320, 520);
  std::vector<double> expected = operands.Expected(520);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += operands.bias()[i % 320];
  for (const int64_t rows : {9, 40, 130, 300, 520}) {
    ExpectClose(Matmul(stream, operands, rows, kF32, true), expected, 1e-5, operands.Name(rows));
    const std::vector<float> y = Matmul(stream, operands, rows, kHeddleCudaBFloat16, true);
    ExpectClose(y, expected, Tolerance(kHeddleCudaBFloat16), operands.Name(rows));
  }
}

// Of sums of both halves.
std::vector<double> Gated(const Operands& operands, const std::vector<double>& sums, HeddleCudaActivation activation,
                          bool with_bias) {
  const int64_t size = operands.n() / 2;
  std::vector<double> gated;
  for (int64_t i = 0; i < static_cast<int64_t>(sums.size()) / 2; ++i) {
    const auto sum = [&](int64_t output) {
      return sums[i / size * 2 * size + output] + (with_bias ? operands.bias()[output] : 0.0f);
    };
    gated.push_back(Activate(activation, sum(i % size)) * sum(size + i % size));
  }
  return gated;
}

void ExpectGated(const Kind& kind) {
  TestStream stream;
  constexpr Sizes kGatedSizes[] = {{8, 16}, {56, 520}, {64, 64}, {1024, 64}, {72, 4104}};
  for (const auto& [size, k] : kGatedSizes) {
    const HeddleCudaDType dtype = size % 16 == 0 ? kHeddleCudaFloat16 : kHeddleCudaBFloat16;
    const Operands operands(stream, kind, dtype, 2 * size, k);
    const std::vector<double> sums = operands.Expected(300);
    for (const HeddleCudaActivation activation : {kHeddleCudaSilu, kHeddleCudaGeluTanh, kHeddleCudaGelu}) {
      for (const bool with_bias : {false, true}) {
        const std::vector<double> expected = Gated(operands, sums, activation, with_bias);
        for (const int64_t rows : {9, 17, 33, 100, 256, 300}) {
          ExpectClose(GatedMatmul(stream, operands, rows, activation, with_bias), expected, 2 * Tolerance(dtype),
                      operands.Name(rows) + " gated");
        }
      }
    }
  }
}

// The first and the last rows of x that tiles of any size have.
std::vector<int64_t> EdgesOfTiles(int64_t rows) {
  std::vector<int64_t> edges;
  for (const int64_t row : {0, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 511}) {
    if (row < rows - 1) edges.push_back(row);
  }
  edges.push_back(rows - 1);
  return edges;
}

std::vector<float> Picked(const std::vector<float>& y, const std::vector<int64_t>& rows, int64_t size) {
  std::vector<float> picked;
  for (const int64_t row : rows) picked.insert(picked.end(), &y[row * size], &y[(row + 1) * size]);
  return picked;
}

// launch(y) over and over, in a graph too, where products follow each other closely.
template <typename Launch>
void ExpectSameAgain(TestStream& stream, HeddleCudaDType dtype, const std::vector<float>& expected,
                     const Launch& launch) {
  constexpr int kCopies = 4;
  std::vector<DeviceArray> ys;
  HeddleCudaGraph* graph = nullptr;
  for (int i = 0; i < kCopies; ++i) ys.push_back(DeviceArray::Poisoned(stream, dtype, expected.size()));
  EXPECT_OK(Api().capture_begin(stream.get()));
  for (const DeviceArray& y : ys) EXPECT_OK(launch(y));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  for (int i = 0; i < 20; ++i) EXPECT_OK(Api().graph_launch(stream.get(), graph));
  for (const DeviceArray& y : ys) EXPECT_TRUE(SameBits(y.ToHost(), expected));
  EXPECT_OK(Api().graph_destroy(graph));
}

struct Product {
  int64_t n, k, rows;
};
// In clusters, in several turns of all blocks, and shared out evenly along k, in few pieces and in many, the
// last one in tiles of 256 rows of x.
const std::vector<Product> kProducts = {{1160, 2072, 9},    {1160, 2072, 64},  {1160, 2072, 200}, {1160, 2072, 520},
                                        {4104, 1032, 64},   {4104, 1032, 300}, {4104, 4104, 128}, {4104, 4104, 256},
                                        {17000, 136, 40},   {17000, 136, 300}, {9000, 520, 520},  {4096, 14344, 32},
                                        {4096, 14344, 100}, {8704, 3080, 512}};
// Tiles of 64, 128 and 256 rows with outliers, shared out and in pieces of many steps.
const std::vector<Product> kProductsWithOutliers = {
    {17000, 4104, 40}, {9000, 4104, 200}, {1160, 8200, 520}, {6152, 8200, 520}, {4104, 14344, 520}};

void ExpectRepeats(const Kind& kind, const std::vector<Product>& products = kProducts) {
  TestStream stream;
  for (const auto& [n, k, rows] : products) {
    const Operands operands(stream, kind, kHeddleCudaBFloat16, n, k);
    const std::vector<float> first = Matmul(stream, operands, rows, kF32);
    const std::vector<int64_t> edges = EdgesOfTiles(rows);
    const double tolerance = kind.threshold == kInfinity ? 1e-6 : 3 * Tolerance(kF32);
    ExpectClose(Picked(first, edges, n), operands.Expected(edges), tolerance, operands.Name(rows));
    for (const HeddleCudaDType dtype : {kF32, kHeddleCudaBFloat16}) {
      ExpectSameAgain(stream, dtype, Rounded(dtype, first), [&, n = n, rows = rows](const DeviceArray& y) {
        const HeddleCudaMatmul op = {
            .x = operands.X(rows), .weight = operands.Weight(), .bias = nullptr, .y = Matrix(y, dtype, rows, n)};
        return Api().matmul(stream.get(), &op);
      });
    }
  }
}

void ExpectGatedRepeats(const Kind& kind) {
  struct Products {
    int64_t n, k;
    std::vector<int64_t> rows;
  };
  const Products all_products[] = {{4096, 14344, {32, 100, 520}}, {8704, 3080, {512}}};
  TestStream stream;
  for (const auto& [n, k, all_rows] : all_products) {
    const Operands operands(stream, kind, kHeddleCudaBFloat16, n, k);
    const int64_t size = n / 2;
    for (const int64_t rows : all_rows) {
      const std::vector<float> first = GatedMatmul(stream, operands, rows, kHeddleCudaSilu, true);
      const std::vector<int64_t> edges = EdgesOfTiles(rows);
      ExpectClose(Picked(first, edges, size), Gated(operands, operands.Expected(edges), kHeddleCudaSilu, true),
                  2 * Tolerance(kHeddleCudaBFloat16), operands.Name(rows) + " gated");
      ExpectSameAgain(stream, kHeddleCudaBFloat16, first, [&](const DeviceArray& y) {
        const HeddleCudaGatedMatmul op = {.x = operands.X(rows),
                                          .gate_up = operands.Weight(),
                                          .bias = operands.Bias(),
                                          .activation = kHeddleCudaSilu,
                                          .y = Matrix(y, kHeddleCudaBFloat16, rows, size)};
        return Api().gated_matmul(stream.get(), &op);
      });
    }
  }
}

// Where row 3 of 136 outputs had NaN in x and row 20 an infinity.
void ExpectSpoiledRows(const Kind& kind, const std::vector<float>& spoiled, const std::vector<float>& clean) {
  for (size_t i = 0; i < clean.size(); ++i) {
    if (kind.sparse && kind.x_quantization == kHeddleCudaKeepX && (i / 136 == 3 || i / 136 == 20)) {
      // A weight that is not there multiplies nothing.
      EXPECT_TRUE(!std::isfinite(spoiled[i]) || spoiled[i] != 0);
    } else if (i / 136 == 3) {
      EXPECT_TRUE(std::isnan(spoiled[i]));
    } else if (i / 136 == 20) {
      EXPECT_TRUE(kind.x_quantization == kHeddleCudaQuantizeX ? std::isnan(spoiled[i]) : !std::isfinite(spoiled[i]));
    } else {
      EXPECT_EQ(spoiled[i], clean[i]);
    }
  }
}

void ExpectNaNStays(const Kind& kind) {
  TestStream stream;
  Operands operands(stream, kind, kHeddleCudaFloat16, 136, 272);
  constexpr int64_t kFewAndMany[] = {40, 520};
  std::vector<float> clean[2];
  for (int i = 0; i < 2; ++i) clean[i] = Matmul(stream, operands, kFewAndMany[i], kF32);
  operands.SetX(stream, 3, 5, kNaN);
  operands.SetX(stream, 20, 271, -kInfinity);
  for (int i = 0; i < 2; ++i) ExpectSpoiledRows(kind, Matmul(stream, operands, kFewAndMany[i], kF32), clean[i]);
}

void ExpectZeroRows(const Kind& kind) {
  TestStream stream;
  Operands operands(stream, kind, kHeddleCudaBFloat16, 40, 64);
  for (int64_t j = 0; j < 64; ++j) operands.SetX(stream, 7, j, 0);
  for (const int64_t rows : {12, 520}) {
    const std::vector<float> y = Matmul(stream, operands, rows, kF32);
    for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(y[7 * 40 + i], 0.0f);
    ExpectClose(y, operands.Expected(rows), 1e-5, "zeros");
  }
}

// In none, one or all columns of what is multiplied at once, and in as many as are multiplied together or one more.
void ExpectOutliersAnywhere(Kind kind) {
  struct Pattern {
    const char* name;
    bool (*is_outlier)(int64_t row, int64_t column);
  };
  constexpr Pattern kPatterns[] = {
      {"none", [](int64_t, int64_t) { return false; }},
      {"one", [](int64_t row, int64_t column) { return row == 7 && column == 700; }},
      {"the last", [](int64_t row, int64_t column) { return row == 69 && column == 999; }},
      {"all columns of a row", [](int64_t row, int64_t) { return row == 8; }},
      {"all rows of a column", [](int64_t, int64_t column) { return column == 257; }},
      {"all columns from 256 to 511, in turn",
       [](int64_t row, int64_t column) { return column / 256 == 1 && row % 7 == column % 7; }},
      {"16 columns", [](int64_t, int64_t column) { return column / 128 == 2 && column % 8 == 3; }},
      {"17 columns",
       [](int64_t row, int64_t column) { return column / 128 == 2 && (column % 8 == 3 || column == 300) && row != 5; }},
      {"a few anywhere", [](int64_t row, int64_t column) { return (row * 1000 + column) * 7919 % 997 == 0; }},
      {"all", [](int64_t, int64_t) { return true; }}};
  kind.threshold = 6;
  // Whole tiles of few rows and all of their rows; then tiles of 32 to 256 rows, in clusters of two and four and whole.
  const std::vector<std::pair<Sizes, std::vector<int64_t>>> products = {{{136, 1000}, {9, 16, 40, 70, 150, 530}},
                                                                        {{1160, 2072}, {64, 200, 520}},
                                                                        {{4104, 1032}, {64, 300}},
                                                                        {{4104, 4104}, {64, 128, 256}}};
  TestStream stream;
  for (const HeddleCudaDType dtype : kTypes) {
    for (const auto& [sizes, all_rows] : products) {
      Operands operands(stream, kind, dtype, sizes.n, sizes.k);
      for (const Pattern& pattern : kPatterns) {
        operands.PlaceOutliers(stream, pattern.is_outlier);
        for (const int64_t rows : all_rows) {
          const std::vector<int64_t> compared = sizes.n < 1000 ? FirstRows(rows) : EdgesOfTiles(rows);
          const std::vector<float> y = Matmul(stream, operands, rows, kF32);
          ExpectClose(Picked(y, compared, sizes.n), operands.Expected(compared), 3 * Tolerance(kF32),
                      operands.Name(rows) + ", outliers: " + pattern.name);
        }
      }
    }
  }
}

// A workspace that has room for a few rows at a time, in groups of few.
void ExpectParts(const Kind& kind) {
  TestStream stream;
  TestStream narrow(int64_t{1} << 20);
  for (const auto& [n, k] : {Sizes{1160, 2072}, Sizes{136, 14344}}) {
    const Operands operands(stream, kind, kHeddleCudaBFloat16, n, k);
    const Operands of_narrow(narrow, kind, kHeddleCudaBFloat16, n, k);
    for (const int64_t rows : {9, 100, 300}) {
      const std::vector<float> whole = Matmul(stream, operands, rows, kF32);
      ExpectClose(Matmul(narrow, of_narrow, rows, kF32), {whole.begin(), whole.end()}, 3 * Tolerance(kF32),
                  operands.Name(rows) + " in parts");
    }
  }
}

TEST(CudaW8A8, "is right for 9 rows and more, any size, stride and type") { ExpectProducts(kW8A8); }
TEST(CudaW8A8, "adds a bias and rounds once") { ExpectBias(kW8A8); }
TEST(CudaW8A8, "gates its sums with every activation") { ExpectGated(kW8A8); }
TEST(CudaW8A8, "gives the same bits over and over, in a graph too") {
  ExpectRepeats(kW8A8);
  ExpectGatedRepeats(kW8A8);
}
TEST(CudaW8A8, "keeps NaN and infinity in the rows that have them") { ExpectNaNStays(kW8A8); }
TEST(CudaW8A8, "gives zeros for a row of zeros") { ExpectZeroRows(kW8A8); }

TEST(CudaInt8Weight, "is right for 9 rows and more, any size, stride and type") { ExpectProducts(kInt8); }
TEST(CudaInt8Weight, "adds a bias and rounds once") { ExpectBias(kInt8); }
TEST(CudaInt8Weight, "gates its sums with every activation") { ExpectGated(kInt8); }
TEST(CudaInt8Weight, "gives the same bits over and over, in a graph too") {
  ExpectRepeats(kInt8);
  ExpectGatedRepeats(kInt8);
}
TEST(CudaInt8Weight, "keeps NaN and infinity in the rows that have them") { ExpectNaNStays(kInt8); }
TEST(CudaInt8Weight, "gives zeros for a row of zeros") { ExpectZeroRows(kInt8); }

TEST(CudaLlmInt8, "is right for 9 rows and more, any size, stride and type") {
  ExpectProducts(kFewOutliers);
  ExpectProducts(kManyOutliers);
}
TEST(CudaLlmInt8, "adds a bias and rounds once") {
  ExpectBias(kFewOutliers);
  ExpectBias(kManyOutliers);
}
TEST(CudaLlmInt8, "gates its sums with every activation") {
  ExpectGated(kFewOutliers);
  ExpectGated(kManyOutliers);
}
TEST(CudaLlmInt8, "gives the same bits over and over, in a graph too") {
  for (const Kind& kind : {kFewOutliers, kManyOutliers}) {
    ExpectRepeats(kind);
    ExpectRepeats(kind, kProductsWithOutliers);
    ExpectGatedRepeats(kind);
  }
}
TEST(CudaLlmInt8, "keeps NaN and infinity in the rows that have them") {
  ExpectNaNStays(kFewOutliers);
  ExpectNaNStays(kManyOutliers);
}
TEST(CudaLlmInt8, "gives zeros for a row of zeros") {
  ExpectZeroRows(kFewOutliers);
  ExpectZeroRows(kManyOutliers);
}

TEST(CudaLlmInt8, "is right wherever the outliers are") { ExpectOutliersAnywhere(kFewOutliers); }
TEST(CudaLlmInt8, "is multiplied in parts where the workspace is small") {
  ExpectParts(kFewOutliers);
  ExpectParts(kManyOutliers);
}

TEST(CudaSparseWeight, "is right for 9 rows and more, any size, stride and type") { ExpectProducts(kSparse); }
TEST(CudaSparseWeight, "adds a bias and rounds once") { ExpectBias(kSparse); }
TEST(CudaSparseWeight, "gates its sums with every activation") { ExpectGated(kSparse); }
TEST(CudaSparseWeight, "gives the same bits over and over, in a graph too") {
  ExpectRepeats(kSparse);
  ExpectGatedRepeats(kSparse);
}
TEST(CudaSparseWeight, "keeps NaN and infinity in the rows that have them") { ExpectNaNStays(kSparse); }
TEST(CudaSparseWeight, "gives zeros for a row of zeros") { ExpectZeroRows(kSparse); }

TEST(CudaSparseInt8Weight, "is right for 9 rows and more, any size, stride and type") { ExpectProducts(kSparseInt8); }
TEST(CudaSparseInt8Weight, "adds a bias and rounds once") { ExpectBias(kSparseInt8); }
TEST(CudaSparseInt8Weight, "gates its sums with every activation") { ExpectGated(kSparseInt8); }
TEST(CudaSparseInt8Weight, "gives the same bits over and over, in a graph too") {
  ExpectRepeats(kSparseInt8);
  ExpectGatedRepeats(kSparseInt8);
}
TEST(CudaSparseInt8Weight, "keeps NaN and infinity in the rows that have them") { ExpectNaNStays(kSparseInt8); }
TEST(CudaSparseInt8Weight, "gives zeros for a row of zeros") { ExpectZeroRows(kSparseInt8); }

TEST(CudaSparseW8A8, "is right for 9 rows and more, any size, stride and type") { ExpectProducts(kSparseW8A8); }
TEST(CudaSparseW8A8, "adds a bias and rounds once") { ExpectBias(kSparseW8A8); }
TEST(CudaSparseW8A8, "gates its sums with every activation") { ExpectGated(kSparseW8A8); }
TEST(CudaSparseW8A8, "gives the same bits over and over, in a graph too") {
  ExpectRepeats(kSparseW8A8);
  ExpectGatedRepeats(kSparseW8A8);
}
TEST(CudaSparseW8A8, "keeps NaN and infinity in the rows that have them") { ExpectNaNStays(kSparseW8A8); }
TEST(CudaSparseW8A8, "gives zeros for a row of zeros") { ExpectZeroRows(kSparseW8A8); }

TEST(CudaSparseLlmInt8, "is right for 9 rows and more, any size, stride and type") { ExpectProducts(kSparseOutliers); }
TEST(CudaSparseLlmInt8, "is right wherever the outliers are") { ExpectOutliersAnywhere(kSparseOutliers); }
TEST(CudaSparseLlmInt8, "adds a bias and rounds once") { ExpectBias(kSparseOutliers); }
TEST(CudaSparseLlmInt8, "gates its sums with every activation") { ExpectGated(kSparseOutliers); }
TEST(CudaSparseLlmInt8, "is multiplied in parts where the workspace is small") { ExpectParts(kSparseOutliers); }
TEST(CudaSparseLlmInt8, "gives the same bits over and over, in a graph too") {
  ExpectRepeats(kSparseOutliers);
  ExpectRepeats(kSparseOutliers, kProductsWithOutliers);
  ExpectGatedRepeats(kSparseOutliers);
}
TEST(CudaSparseLlmInt8, "keeps NaN and infinity in the rows that have them") { ExpectNaNStays(kSparseOutliers); }
TEST(CudaSparseLlmInt8, "gives zeros for a row of zeros") { ExpectZeroRows(kSparseOutliers); }

}  // namespace
}  // namespace heddle::test
