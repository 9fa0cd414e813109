// Matmul and GatedMatmul against products in double.
//
// Errors are measured against the size that a sum of k random products has, sqrt(k): one product missing of k is then
// an error of 1 / sqrt(k), far beyond what float32 sums are allowed, and a sum that happens to be near zero is no
// trouble.
#include <cmath>
#include <limits>
#include <string>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr int64_t kMaxRows = 300;
constexpr int64_t kFewRows[] = {1, 2, 3, 4, 5, 6, 7, 8};
constexpr int64_t kManyRows[] = {9, 15, 16, 17, 24, 31, 32, 33, 57, 64, 65, 128, 300};
constexpr HeddleCudaActivation kActivations[] = {kHeddleCudaSilu, kHeddleCudaGeluTanh, kHeddleCudaGelu};

int64_t Padded(int64_t size, int64_t gap = 8) { return (size + 7) / 8 * 8 + gap; }

// [rows, size] with `stride` elements between rows, NaN in what lies between.
std::vector<float> WithGaps(const std::vector<float>& values, int64_t rows, int64_t size, int64_t stride) {
  std::vector<float> padded(static_cast<size_t>(rows * stride), std::numeric_limits<float>::quiet_NaN());
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(values.begin() + row * size, size, padded.begin() + row * stride);
  }
  return padded;
}

std::vector<double> Product(const std::vector<float>& x, const std::vector<float>& weight, int64_t m, int64_t n,
                            int64_t k) {
  std::vector<double> y(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += double{x[i * k + l]} * weight[j * k + l];
      y[i * n + j] = sum;
    }
  }
  return y;
}

double Activate(HeddleCudaActivation activation, double x) {
  if (activation == kHeddleCudaSilu) return x / (1 + std::exp(-x));
  if (activation == kHeddleCudaGelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

// Operands on the device, with gaps between rows, and on the host.
struct Operands {
  Operands(TestStream& stream, HeddleCudaDType type, int64_t outputs, int64_t columns, float deviation = 1)
      : dtype(type),
        n(outputs),
        k(columns),
        x(Rounded(dtype, RandomFloats(kMaxRows * k, 1))),
        weight(Rounded(dtype, RandomFloats(n * k, 2, deviation))),
        bias(RandomFloats(n, 3)),
        x_on_device(DeviceArray::From(stream, dtype, WithGaps(x, kMaxRows, k, Padded(k)))),
        weight_on_device(DeviceArray::From(stream, dtype, WithGaps(weight, n, k, Padded(k, 16)))),
        bias_on_device(DeviceArray::From(stream, kF32, bias)) {}

  HeddleCudaMatrix X(int64_t rows, int64_t first = 0) const {
    HeddleCudaMatrix matrix = Matrix(x_on_device, dtype, rows, k, Padded(k));
    matrix.data = static_cast<unsigned char*>(matrix.data) + first * Padded(k) * (dtype == kF32 ? 4 : 2);
    return matrix;
  }
  HeddleCudaWeight Weight() const { return DenseWeight(Matrix(weight_on_device, dtype, n, k, Padded(k, 16))); }
  const float* Bias() const { return bias_on_device.As<float>(); }
  std::string Name(int64_t rows) const {
    return std::string(NameOf(dtype)) + " [" + std::to_string(rows) + ", " + std::to_string(k) + "] x [" +
           std::to_string(n) + ", " + std::to_string(k) + "]^T";
  }

  HeddleCudaDType dtype;
  int64_t n, k;
  std::vector<float> x, weight, bias;
  DeviceArray x_on_device, weight_on_device, bias_on_device;
};

// y of `rows` rows, which lies between gaps that must stay as they were.
std::vector<float> Matmul(TestStream& stream, const Operands& operands, int64_t rows, HeddleCudaDType y_dtype,
                          bool with_bias = false, int64_t first = 0) {
  const int64_t stride = Padded(operands.n);
  const DeviceArray y = DeviceArray::Poisoned(stream, y_dtype, static_cast<size_t>((rows + 1) * stride));
  const HeddleCudaMatmul op = {.x = operands.X(rows, first),
                               .weight = operands.Weight(),
                               .bias = with_bias ? operands.Bias() : nullptr,
                               .y = Matrix(y, y_dtype, rows, operands.n, stride)};
  MustSucceed(Api().matmul(stream.get(), &op), operands.Name(rows).c_str());
  const std::vector<float> all = y.ToHost();
  if (!GapsAreNaN(all, rows, operands.n, stride)) Fail(__FILE__, __LINE__, operands.Name(rows) + " wrote into a gap");
  return RowsOf(all, rows, operands.n, stride);
}

std::vector<float> GatedMatmul(TestStream& stream, const Operands& operands, int64_t rows,
                               HeddleCudaActivation activation, bool with_bias) {
  const int64_t size = operands.n / 2;
  const int64_t stride = Padded(size);
  const DeviceArray y = DeviceArray::Poisoned(stream, operands.dtype, static_cast<size_t>((rows + 1) * stride));
  const HeddleCudaGatedMatmul op = {.x = operands.X(rows),
                                    .gate_up = operands.Weight(),
                                    .bias = with_bias ? operands.Bias() : nullptr,
                                    .activation = activation,
                                    .y = Matrix(y, operands.dtype, rows, size, stride)};
  MustSucceed(Api().gated_matmul(stream.get(), &op), operands.Name(rows).c_str());
  const std::vector<float> all = y.ToHost();
  if (!GapsAreNaN(all, rows, size, stride)) Fail(__FILE__, __LINE__, operands.Name(rows) + " wrote into a gap");
  return RowsOf(all, rows, size, stride);
}

// Products of many rows need a library that may not be there; how many those are depends on the device, but in float32
// it is more than 8.
void NeedManyRows(TestStream& stream) {
  const Operands operands(stream, kF32, 8, 8);
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, 16 * 8);
  const HeddleCudaMatmul op = {
      .x = operands.X(16), .weight = operands.Weight(), .bias = nullptr, .y = Matrix(y, kF32, 16, 8)};
  if (Api().matmul(stream.get(), &op) == kHeddleCudaUnavailable) SKIP(Api().last_error());
}

// The first actual.size() of `expected` differ from `actual` by no more than `tolerance` times sqrt(k), on average.
void ExpectClose(const std::vector<float>& actual, const std::vector<double>& expected, int64_t k, double tolerance,
                 const std::string& name) {
  double sum = 0;
  for (size_t i = 0; i < actual.size(); ++i) sum += (actual[i] - expected[i]) * (actual[i] - expected[i]);
  const double error = std::sqrt(sum / static_cast<double>(actual.size() * k));
  if (!(error <= tolerance)) Fail(__FILE__, __LINE__, name + ": error " + Show(error) + " of sqrt(k)");
}

struct Sizes {
  int64_t n, k;
};
constexpr Sizes kSizes[] = {{1, 1},     {7, 8},      {8, 7},     {63, 160},   {160, 63},   {4104, 160}, {33, 4104},
                            {160, 512}, {4104, 520}, {63, 1024}, {63, 14336}, {14336, 63}, {20011, 136}};

template <size_t kCount>
void ExpectProducts(TestStream& stream, const int64_t (&rows)[kCount]) {
  for (const HeddleCudaDType dtype : kAllDTypes) {
    for (const auto& [n, k] : kSizes) {
      const Operands operands(stream, dtype, n, k);
      const std::vector<double> expected = Product(operands.x, operands.weight, rows[kCount - 1], n, k);
      for (const int64_t m : rows) {
        // Inputs are exact: whatever their type, float32 sums differ only by their own roundings. Tensor cores cut
        // where others round, so that errors of a long sum all go one way.
        const double tolerance = (dtype == kF32 ? 1 : 3) * Tolerance(kF32);
        ExpectClose(Matmul(stream, operands, m, kF32), expected, k, tolerance, operands.Name(m));
        ExpectClose(Matmul(stream, operands, m, dtype), expected, k, Tolerance(dtype), operands.Name(m));
      }
    }
  }
}

TEST(CudaMatmul, "is right for 1 to 8 rows, any size, stride and type") {
  TestStream stream;
  ExpectProducts(stream, kFewRows);
}

TEST(CudaMatmul, "is right for many rows, any size, stride and type") {
  TestStream stream;
  NeedManyRows(stream);
  ExpectProducts(stream, kManyRows);
}

TEST(CudaMatmul, "takes a weight of one row whatever its stride, in every kind of product") {
  TestStream stream;
  NeedManyRows(stream);
  for (const HeddleCudaDType dtype : kAllDTypes) {
    const Operands operands(stream, dtype, 1, 160);
    for (const int64_t rows : {1, 9, 64, 65}) {
      const std::vector<double> expected = Product(operands.x, operands.weight, rows, 1, operands.k);
      for (const int64_t stride : {int64_t{0}, int64_t{3}, int64_t{1} << 45}) {
        const DeviceArray y = DeviceArray::Poisoned(stream, kF32, static_cast<size_t>(rows * 8));
        HeddleCudaMatmul op = {
            .x = operands.X(rows), .weight = operands.Weight(), .bias = nullptr, .y = Matrix(y, kF32, rows, 1, 8)};
        op.weight.values.stride = stride;
        EXPECT_OK(Api().matmul(stream.get(), &op));
        ExpectClose(RowsOf(y.ToHost(), rows, 1, 8), expected, operands.k, 3 * Tolerance(kF32), operands.Name(rows));
      }
    }
  }
}

// Half of the distance between numbers of this type around x.
double HalfUnit(HeddleCudaDType dtype, double x) {
  const int bits = dtype == kHeddleCudaBFloat16 ? 8 : dtype == kHeddleCudaFloat16 ? 11 : 24;
  return std::ldexp(1.0, std::ilogb(x) - bits);
}

template <size_t kCount>
void ExpectBias(TestStream& stream, const int64_t (&rows)[kCount]) {
  constexpr Sizes kBiasSizes[] = {{63, 160}, {320, 520}};
  for (const HeddleCudaDType dtype : kAllDTypes) {
    for (const auto& [n, k] : kBiasSizes) {
      const Operands operands(stream, dtype, n, k);
      std::vector<double> expected = Product(operands.x, operands.weight, rows[kCount - 1], n, k);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += operands.bias[i % n];
      const double sum_error = 2e-5 * std::sqrt(static_cast<double>(k));
      for (const int64_t m : rows) {
        ExpectClose(Matmul(stream, operands, m, kF32, true), expected, k, Tolerance(kF32), operands.Name(m));
        const std::vector<float> y = Matmul(stream, operands, m, dtype, true);
        for (size_t i = 0; i < y.size(); ++i) {
          EXPECT_NEAR(y[i], expected[i], HalfUnit(dtype, expected[i]) * 1.02 + sum_error);
        }
      }
    }
  }
}

TEST(CudaMatmul, "adds a float32 bias to 1 to 8 rows and rounds once") {
  TestStream stream;
  ExpectBias(stream, kFewRows);
}

TEST(CudaMatmul, "adds a float32 bias to many rows and rounds once") {
  TestStream stream;
  NeedManyRows(stream);
  ExpectBias(stream, kManyRows);
}

template <size_t kCount>
void ExpectGated(TestStream& stream, const int64_t (&rows)[kCount]) {
  constexpr Sizes kGatedSizes[] = {{1, 8}, {7, 160}, {63, 520}, {1024, 64}, {56, 4104}};
  for (const HeddleCudaDType dtype : kAllDTypes) {
    for (const auto& [size, k] : kGatedSizes) {
      // Sums of deviation 1, where activations bend.
      const Operands operands(stream, dtype, 2 * size, k, 1 / std::sqrt(static_cast<float>(k)));
      const std::vector<double> sums = Product(operands.x, operands.weight, rows[kCount - 1], 2 * size, k);
      for (const HeddleCudaActivation activation : kActivations) {
        for (const bool with_bias : {false, true}) {
          const auto sum = [&](int64_t row, int64_t i) {
            return sums[row * 2 * size + i] + (with_bias ? operands.bias[i] : 0.0f);
          };
          std::vector<double> expected;
          for (int64_t i = 0; i < rows[kCount - 1] * size; ++i) {
            const int64_t row = i / size;
            expected.push_back(Activate(activation, sum(row, i % size)) * sum(row, size + i % size));
          }
          for (const int64_t m : rows) {
            ExpectClose(GatedMatmul(stream, operands, m, activation, with_bias), expected, 1, Tolerance(dtype),
                        operands.Name(m) + " gated");
          }
        }
      }
    }
  }
}

TEST(CudaGatedMatmul, "is right for 1 to 8 rows and every activation") {
  TestStream stream;
  ExpectGated(stream, kFewRows);
}

TEST(CudaGatedMatmul, "is right for many rows and every activation") {
  TestStream stream;
  NeedManyRows(stream);
  ExpectGated(stream, kManyRows);
}

TEST(CudaGatedMatmul, "runs in parts where the workspace does not hold all rows") {
  TestStream stream(int64_t{512} << 10);
  NeedManyRows(stream);
  ExpectGated(stream, {300});
}

TEST(CudaMatmul, "gives a row the same bits alone and beside up to 7 others") {
  TestStream stream;
  for (const HeddleCudaDType dtype : kAllDTypes) {
    // The second is one whose rows of x do not stay in shared memory from some number of rows on.
    for (const auto& [n, k] : {Sizes{100, 520}, Sizes{4104, 4104}}) {
      const Operands operands(stream, dtype, n, k);
      for (const int64_t row : {int64_t{0}, int64_t{2}}) {
        const std::vector<float> alone = Matmul(stream, operands, 1, kF32, false, row);
        for (int64_t m = row + 1; m <= 8; ++m) {
          const std::vector<float> beside = Matmul(stream, operands, m, kF32);
          EXPECT_TRUE(SameBits(alone, RowsOf({beside.begin() + row * n, beside.end()}, 1, n, n)));
        }
      }
    }
  }
}

TEST(CudaMatmul, "keeps NaN and infinity in the rows that have them") {
  TestStream stream;
  constexpr int64_t kN = 40;
  constexpr int64_t kK = 96;
  for (const HeddleCudaDType dtype : kAllDTypes) {
    const Operands operands(stream, dtype, kN, kK);
    const std::vector<float> clean = Matmul(stream, operands, 3, kF32);
    std::vector<float> x(operands.x.begin(), operands.x.begin() + 3 * kK);
    x[kK + 5] = std::numeric_limits<float>::quiet_NaN();
    x[kK + 70] = std::numeric_limits<float>::infinity();
    const DeviceArray spoiled = DeviceArray::From(stream, dtype, x);
    const DeviceArray y = DeviceArray::Poisoned(stream, kF32, 3 * kN);
    const HeddleCudaMatmul op = {
        .x = Matrix(spoiled, dtype, 3, kK), .weight = operands.Weight(), .bias = nullptr, .y = Matrix(y, kF32, 3, kN)};
    EXPECT_OK(Api().matmul(stream.get(), &op));
    const std::vector<float> actual = y.ToHost();
    for (const int64_t row : {0, 2}) {
      for (int64_t i = row * kN; i < (row + 1) * kN; ++i) EXPECT_EQ(actual[i], clean[i]);
    }
    for (int64_t i = kN; i < 2 * kN; ++i) EXPECT_TRUE(std::isnan(actual[i]));
  }
}

// Products each of which reads what the one before it wrote, through two buffers in turn: a kernel that begins before
// the one ahead of it has ended must neither read too early nor overwrite what is still being read.
class Chain {
 public:
  static constexpr int64_t kWidth = 768;
  static constexpr int64_t kInner = 2048;
  static constexpr int kLinks = 3;

  Chain(TestStream& stream, HeddleCudaDType dtype, int64_t rows)
      : stream_(stream),
        dtype_(dtype),
        rows_(rows),
        input_(Rounded(dtype, RandomFloats(rows * kWidth, 20))),
        source_(DeviceArray::From(stream, dtype, input_)),
        narrow_(DeviceArray::Poisoned(stream, dtype, rows * kWidth)),
        wide_(DeviceArray::Poisoned(stream, dtype, rows * kInner)) {
    // Numbers of about 1 everywhere.
    const float gate_up_scale = 1 / std::sqrt(static_cast<float>(kWidth));
    const float down_scale = 1.7f / std::sqrt(static_cast<float>(kInner));
    for (int i = 0; i < kLinks; ++i) {
      gate_up_.push_back(Rounded(dtype, RandomFloats(2 * kInner * kWidth, 30 + i, gate_up_scale)));
      down_.push_back(Rounded(dtype, RandomFloats(kWidth * kInner, 40 + i, down_scale)));
      gate_up_on_device_.push_back(DeviceArray::From(stream, dtype, gate_up_.back()));
      down_on_device_.push_back(DeviceArray::From(stream, dtype, down_.back()));
    }
  }

  void Launch() const {
    HeddleCudaMatrix x = Matrix(source_, dtype_, rows_, kWidth);
    for (int i = 0; i < kLinks; ++i) {
      const HeddleCudaMatrix inner = Matrix(wide_, dtype_, rows_, kInner);
      const HeddleCudaGatedMatmul gated = {
          .x = x,
          .gate_up = DenseWeight(Matrix(gate_up_on_device_[i], dtype_, 2 * kInner, kWidth)),
          .bias = nullptr,
          .activation = kHeddleCudaSilu,
          .y = inner};
      x = Matrix(narrow_, dtype_, rows_, kWidth);
      const HeddleCudaMatmul down = {.x = inner,
                                     .weight = DenseWeight(Matrix(down_on_device_[i], dtype_, kWidth, kInner)),
                                     .bias = nullptr,
                                     .y = x};
      EXPECT_OK(Api().gated_matmul(stream_.get(), &gated));
      EXPECT_OK(Api().matmul(stream_.get(), &down));
    }
  }

  std::vector<float> Output() const { return narrow_.ToHost(); }

  void SetInput(const std::vector<float>& values) {
    input_ = Rounded(dtype_, values);
    const DeviceArray other = DeviceArray::From(stream_, dtype_, input_);
    EXPECT_OK(Api().copy(stream_.get(), source_.data(), other.data(), rows_ * kWidth * (dtype_ == kF32 ? 4 : 2)));
    stream_.Synchronize();
  }

  // With every product rounded as on the device.
  std::vector<double> Expected() const {
    std::vector<float> x = input_;
    std::vector<double> y;
    for (int i = 0; i < kLinks; ++i) {
      const std::vector<double> sums = Product(x, gate_up_[i], rows_, 2 * kInner, kWidth);
      std::vector<float> inner;
      for (int64_t j = 0; j < rows_ * kInner; ++j) {
        const double* const row = sums.data() + j / kInner * 2 * kInner;
        inner.push_back(static_cast<float>(Activate(kHeddleCudaSilu, row[j % kInner]) * row[kInner + j % kInner]));
      }
      y = Product(Rounded(dtype_, inner), down_[i], rows_, kWidth, kInner);
      x = Rounded(dtype_, std::vector<float>(y.begin(), y.end()));
    }
    return y;
  }

 private:
  TestStream& stream_;
  HeddleCudaDType dtype_;
  int64_t rows_;
  std::vector<float> input_;
  DeviceArray source_, narrow_, wide_;
  std::vector<std::vector<float>> gate_up_, down_;
  std::vector<DeviceArray> gate_up_on_device_, down_on_device_;
};

TEST(CudaMatmul, "is right in chains that nothing separates, over and over") {
  TestStream stream;
  const auto expect = [&](HeddleCudaDType dtype, int64_t rows) {
    const Chain chain(stream, dtype, rows);
    chain.Launch();
    const std::vector<float> first = chain.Output();
    EXPECT_TRUE(RelativeError(first, chain.Expected()) <= 10 * Tolerance(dtype));
    for (int i = 0; i < 20; ++i) {
      for (int j = 0; j < 5; ++j) chain.Launch();
      EXPECT_TRUE(SameBits(chain.Output(), first));
    }
  };
  for (const int64_t rows : {1, 3}) expect(kF32, rows);
  for (const int64_t rows : {1, 3, 17, 40}) expect(kHeddleCudaBFloat16, rows);
}

void ExpectGraphRepeats(int64_t rows) {
  TestStream stream;
  if (rows > 8) NeedManyRows(stream);
  Chain chain(stream, kHeddleCudaBFloat16, rows);
  // Outside first, where algorithms are chosen by trying them.
  chain.Launch();
  HeddleCudaGraph* graph = nullptr;
  EXPECT_OK(Api().capture_begin(stream.get()));
  chain.Launch();
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  for (uint64_t seed = 50; seed < 53; ++seed) {
    chain.SetInput(RandomFloats(rows * Chain::kWidth, seed));
    chain.Launch();
    const std::vector<float> expected = chain.Output();
    for (int i = 0; i < 10; ++i) EXPECT_OK(Api().graph_launch(stream.get(), graph));
    EXPECT_TRUE(SameBits(chain.Output(), expected));
  }
  EXPECT_OK(Api().graph_destroy(graph));
}

TEST(CudaMatmul, "does in a graph what it does outside, for few rows") { ExpectGraphRepeats(2); }
TEST(CudaMatmul, "does in a graph what it does outside, for some more rows") { ExpectGraphRepeats(24); }
TEST(CudaMatmul, "does in a graph what it does outside, for many rows") { ExpectGraphRepeats(80); }

TEST(CudaMatmul, "can be captured before any product of many rows has run") {
  TestStream other;
  NeedManyRows(other);
  TestStream stream;
  const Operands operands(stream, kHeddleCudaBFloat16, 160, 520);
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, 100 * 160);
  const HeddleCudaMatmul op = {
      .x = operands.X(100), .weight = operands.Weight(), .bias = nullptr, .y = Matrix(y, kF32, 100, 160)};
  HeddleCudaGraph* graph = nullptr;
  EXPECT_OK(Api().capture_begin(stream.get()));
  EXPECT_OK(Api().matmul(stream.get(), &op));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  EXPECT_OK(Api().graph_launch(stream.get(), graph));
  ExpectClose(y.ToHost(), Product(operands.x, operands.weight, 100, 160, 520), 520, Tolerance(kF32), "captured first");
  EXPECT_OK(Api().graph_destroy(graph));
}

TEST(CudaMatmul, "does nothing for no rows and refuses what does not fit together") {
  TestStream stream;
  const Operands operands(stream, kHeddleCudaBFloat16, 16, 24);
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, 4 * 16);
  const HeddleCudaMatmul good = {
      .x = operands.X(4), .weight = operands.Weight(), .bias = nullptr, .y = Matrix(y, kF32, 4, 16)};
  const auto run = [&](auto change) {
    HeddleCudaMatmul op = good;
    change(op);
    return Api().matmul(stream.get(), &op);
  };
  EXPECT_OK(run([](HeddleCudaMatmul& op) { op.x.num_rows = op.y.num_rows = 0; }));
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.x.num_rows = 3; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.x.size = 16; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.x.dtype = kHeddleCudaFloat16; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.y.dtype = kHeddleCudaFloat16; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.weight.values.num_rows = 15; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.x.stride = 25; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.weight.values.data = nullptr; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.weight.values.dtype = kHeddleCudaInt8; }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([&](HeddleCudaMatmul& op) { op.weight.scales = operands.Bias(); }), kHeddleCudaInvalid);
  EXPECT_STATUS(run([](HeddleCudaMatmul& op) { op.weight.x_quantization = kHeddleCudaQuantizeX; }), kHeddleCudaInvalid);
  for (const float value : y.ToHost()) EXPECT_TRUE(std::isnan(value));
  EXPECT_OK(run([](HeddleCudaMatmul&) {}));
  for (const float value : y.ToHost()) EXPECT_TRUE(!std::isnan(value));
}

}  // namespace
}  // namespace heddle::test
