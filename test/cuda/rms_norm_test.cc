#include <cmath>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr float kEpsilon = 1e-5f;

// Whole and broken vectors; less than a warp, a warp, a block, several vectors a thread, more than registers hold.
const std::vector<int64_t> kSizes = {1,    7,    8,    24,   80,   128,   256,   264,  896,
                                     1001, 2304, 4096, 8192, 8200, 16384, 32768, 32776};

struct TypePair {
  HeddleCudaDType x, y;
};
// All that the header allows.
const std::vector<TypePair> kTypePairs = {
    {kF32, kF32},
    {kF32, kHeddleCudaFloat16},
    {kF32, kHeddleCudaBFloat16},
    {kHeddleCudaFloat16, kHeddleCudaFloat16},
    {kHeddleCudaFloat16, kF32},
    {kHeddleCudaBFloat16, kHeddleCudaBFloat16},
    {kHeddleCudaBFloat16, kF32},
};

// x and y are `parts` parts of `size` elements one after the other.
std::vector<double> Reference(const std::vector<float>& x, const std::vector<float>& weight, int64_t parts) {
  const size_t size = weight.size();
  std::vector<double> y;
  for (size_t part = 0; part < static_cast<size_t>(parts); ++part) {
    double squares = 0;
    for (size_t i = 0; i < size; ++i) squares += double{x[part * size + i]} * x[part * size + i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(size) + kEpsilon);
    for (size_t i = 0; i < size; ++i) y.push_back(x[part * size + i] * scale * weight[i]);
  }
  return y;
}

// Normalises rows * heads parts of `size`; rows lie `gap` elements further apart than they are long.
void CheckRmsNorm(TestStream& stream, const TypePair& types, int64_t rows, int32_t heads, int64_t size, int64_t gap) {
  const int64_t row_size = heads * size;
  const int64_t stride = row_size + gap;
  const auto all = static_cast<size_t>(rows * stride);
  const std::vector<float> values = Rounded(types.x, RandomFloats(all, static_cast<uint64_t>(size), 3));
  const std::vector<float> weights = RandomFloats(static_cast<size_t>(size), 2);
  const DeviceArray x = DeviceArray::From(stream, types.x, values);
  const DeviceArray weight = DeviceArray::From(stream, kF32, weights);
  const DeviceArray y = DeviceArray::Poisoned(stream, types.y, all);
  const HeddleCudaRmsNorm op = {.x = Matrix(x, types.x, rows, row_size, stride),
                                .num_heads = heads,
                                .weight = weight.As<float>(),
                                .epsilon = kEpsilon,
                                .y = Matrix(y, types.y, rows, row_size, stride)};
  EXPECT_OK(Api().rms_norm(stream.get(), &op));
  const std::vector<double> expected = Reference(RowsOf(values, rows, row_size, stride), weights, rows * heads);
  const std::vector<float> result = y.ToHost();
  EXPECT_NEAR(RelativeError(RowsOf(result, rows, row_size, stride), expected), 0, Tolerance(types.y));
  EXPECT_TRUE(GapsAreNaN(result, rows, row_size, stride));
  EXPECT_TRUE(x.ToHost() == values);
}

TEST(CudaRmsNorm, "agrees with its reference for every type, size and stride") {
  TestStream stream;
  for (const TypePair& types : kTypePairs) {
    for (int64_t size : kSizes) {
      CheckRmsNorm(stream, types, 1, 1, size, 0);
      CheckRmsNorm(stream, types, 3, 1, size, 8);  // aligned where the size is
      CheckRmsNorm(stream, types, 5, 1, size, 3);
    }
  }
}

TEST(CudaRmsNorm, "takes heads for themselves") {
  TestStream stream;
  for (const TypePair& types : kTypePairs) {
    for (int64_t size : {6, 16, 64, 96, 128, 256, 512}) CheckRmsNorm(stream, types, 7, 5, size, 16);
  }
  CheckRmsNorm(stream, {kHeddleCudaBFloat16, kHeddleCudaBFloat16}, 1000, 40, 128, 2048);
}

TEST(CudaRmsNorm, "normalises many rows, and in place") {
  TestStream stream;
  constexpr int64_t kRows = 4099;
  constexpr int64_t kSize = 896;
  for (HeddleCudaDType dtype : kAllDTypes) {
    const std::vector<float> values = Rounded(dtype, RandomFloats(kRows * kSize, 4));
    const std::vector<float> weights = RandomFloats(kSize, 5);
    const DeviceArray x = DeviceArray::From(stream, dtype, values);
    const DeviceArray weight = DeviceArray::From(stream, kF32, weights);
    const HeddleCudaMatrix matrix = Matrix(x, dtype, kRows, kSize);
    const HeddleCudaRmsNorm op = {
        .x = matrix, .num_heads = 1, .weight = weight.As<float>(), .epsilon = kEpsilon, .y = matrix};
    EXPECT_OK(Api().rms_norm(stream.get(), &op));
    EXPECT_NEAR(RelativeError(x.ToHost(), Reference(values, weights, kRows)), 0, Tolerance(dtype));
  }
}

TEST(CudaRmsNorm, "needs epsilon for zeros, and takes memory that lies on no 16 bytes") {
  TestStream stream;
  const DeviceArray x = DeviceArray::From(stream, kF32, {9, 0, 0, 0, 0, 0, 0, 0, 0});
  const DeviceArray weight = DeviceArray::From(stream, kF32, std::vector<float>(9, 2));
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, 9);
  HeddleCudaMatrix from = Matrix(x, kF32, 1, 8);
  HeddleCudaMatrix to = Matrix(y, kF32, 1, 8);
  from.data = x.As<float>() + 1;
  to.data = y.As<float>() + 1;
  const HeddleCudaRmsNorm op = {
      .x = from, .num_heads = 1, .weight = weight.As<float>() + 1, .epsilon = kEpsilon, .y = to};
  EXPECT_OK(Api().rms_norm(stream.get(), &op));
  const std::vector<float> result = y.ToHost();
  EXPECT_TRUE(std::isnan(result[0]));
  EXPECT_TRUE(std::vector<float>(result.begin() + 1, result.end()) == std::vector<float>(8, 0));
}

TEST(CudaRmsNorm, "does nothing for no rows, and refuses what does not fit together") {
  TestStream stream;
  const DeviceArray x = DeviceArray::Poisoned(stream, kF32, 64);
  const HeddleCudaRmsNorm good = {.x = Matrix(x, kF32, 2, 24),
                                  .num_heads = 3,
                                  .weight = x.As<float>(),
                                  .epsilon = kEpsilon,
                                  .y = Matrix(x, kF32, 2, 24)};
  HeddleCudaRmsNorm op = good;
  op.x.num_rows = op.y.num_rows = 0;
  EXPECT_OK(Api().rms_norm(stream.get(), &op));
  const auto refused = [&](auto change) {
    op = good;
    change();
    EXPECT_STATUS(Api().rms_norm(stream.get(), &op), kHeddleCudaInvalid);
  };
  refused([&] { op.num_heads = 5; });
  refused([&] { op.num_heads = 0; });
  refused([&] { op.y.num_rows = 1; });
  refused([&] { op.y.size = 23; });
  refused([&] { op.x.stride = 23; });
  refused([&] { op.x.num_rows = -1; });
  refused([&] { op.weight = nullptr; });
  refused([&] { op.y.data = nullptr; });
  refused([&] { op.x.dtype = static_cast<HeddleCudaDType>(7); });
  refused([&] { op.x.dtype = kHeddleCudaFloat16, op.y.dtype = kHeddleCudaBFloat16; });
}

void CheckAddRmsNorm(TestStream& stream, HeddleCudaDType dtype, int64_t rows, int64_t size, int64_t gap,
                     bool in_place) {
  const int64_t stride = size + gap;
  const auto all = static_cast<size_t>(rows * stride);
  const std::vector<float> added = Rounded(dtype, RandomFloats(all, static_cast<uint64_t>(size), 2));
  // The residual's rows lie closer than those of x.
  const int64_t residual_stride = size + gap / 2;
  const std::vector<float> before = RandomFloats(static_cast<size_t>(rows * residual_stride), 6, 2);
  const std::vector<float> weights = RandomFloats(static_cast<size_t>(size), 7);
  const DeviceArray x = DeviceArray::From(stream, dtype, added);
  const DeviceArray residual = DeviceArray::From(stream, kF32, before);
  const DeviceArray weight = DeviceArray::From(stream, kF32, weights);
  const DeviceArray other = DeviceArray::Poisoned(stream, dtype, all);
  const DeviceArray& y = in_place ? x : other;
  const HeddleCudaAddRmsNorm op = {.x = Matrix(x, dtype, rows, size, stride),
                                   .residual = Matrix(residual, kF32, rows, size, residual_stride),
                                   .weight = weight.As<float>(),
                                   .epsilon = kEpsilon,
                                   .y = Matrix(y, dtype, rows, size, stride)};
  EXPECT_OK(Api().add_rms_norm(stream.get(), &op));

  std::vector<float> sums = before;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < size; ++i) {
      sums[static_cast<size_t>(row * residual_stride + i)] += added[static_cast<size_t>(row * stride + i)];
    }
  }
  EXPECT_TRUE(residual.ToHost() == sums);
  const std::vector<double> expected = Reference(RowsOf(sums, rows, size, residual_stride), weights, rows);
  const std::vector<float> result = y.ToHost();
  EXPECT_NEAR(RelativeError(RowsOf(result, rows, size, stride), expected), 0, Tolerance(dtype));
  if (!in_place) EXPECT_TRUE(GapsAreNaN(result, rows, size, stride));
}

TEST(CudaAddRmsNorm, "agrees with its reference for every type, size and stride, and in place") {
  TestStream stream;
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (int64_t size : kSizes) {
      CheckAddRmsNorm(stream, dtype, 1, size, 0, false);
      CheckAddRmsNorm(stream, dtype, 3, size, 16, false);
      CheckAddRmsNorm(stream, dtype, 5, size, 3, true);
      CheckAddRmsNorm(stream, dtype, 2, size, 0, true);
    }
    CheckAddRmsNorm(stream, dtype, 4099, 512, 8, false);
  }
}

TEST(CudaAddRmsNorm, "refuses what does not fit together") {
  TestStream stream;
  const DeviceArray x = DeviceArray::Poisoned(stream, kF32, 64);
  const HeddleCudaAddRmsNorm good = {.x = Matrix(x, kF32, 2, 24),
                                     .residual = Matrix(x, kF32, 2, 24),
                                     .weight = x.As<float>(),
                                     .epsilon = kEpsilon,
                                     .y = Matrix(x, kF32, 2, 24)};
  HeddleCudaAddRmsNorm op = good;
  op.x.num_rows = op.y.num_rows = op.residual.num_rows = 0;
  EXPECT_OK(Api().add_rms_norm(stream.get(), &op));
  const auto refused = [&](auto change) {
    op = good;
    change();
    EXPECT_STATUS(Api().add_rms_norm(stream.get(), &op), kHeddleCudaInvalid);
  };
  refused([&] { op.residual.size = 16; });
  refused([&] { op.residual.dtype = kHeddleCudaFloat16; });
  refused([&] { op.y.dtype = kHeddleCudaFloat16; });
  refused([&] { op.y.num_rows = 3; });
  refused([&] { op.weight = nullptr; });
}

}  // namespace
}  // namespace heddle::test
