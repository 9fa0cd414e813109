// AddBias, SoftCap, GatherRows and FillRandom.
#include <cmath>
#include <numbers>
#include <numeric>

#include "cuda_testing.h"
#include "sampler/philox.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
const std::vector<int64_t> kSizes = {1, 7, 8, 15, 16, 111, 896, 2056, 4096};

TEST(CudaAddBias, "adds the bias to every row in every dtype") {
  TestStream stream;
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (int64_t size : kSizes) {
      for (int64_t gap : {0, 8, 3}) {
        const int64_t rows = gap == 3 ? 1 : 5;
        const int64_t stride = size + gap;
        const std::vector<float> values = Rounded(dtype, RandomFloats(static_cast<size_t>(rows * stride), 1));
        const std::vector<float> addends = RandomFloats(static_cast<size_t>(size), 2);
        const DeviceArray y = DeviceArray::From(stream, dtype, values);
        const DeviceArray bias = DeviceArray::From(stream, kF32, addends);
        const HeddleCudaAddBias op = {.bias = bias.As<float>(), .y = Matrix(y, dtype, rows, size, stride)};
        EXPECT_OK(Api().add_bias(stream.get(), &op));
        std::vector<float> expected = values;
        for (int64_t i = 0; i < rows * stride; ++i) {
          if (i % stride < size) expected[static_cast<size_t>(i)] += addends[static_cast<size_t>(i % stride)];
        }
        EXPECT_TRUE(y.ToHost() == Rounded(dtype, expected));
      }
    }
  }
}

TEST(CudaSoftCap, "caps softly and leaves what lies between rows") {
  TestStream stream;
  constexpr float kCap = 30;
  for (int64_t size : kSizes) {
    for (int64_t gap : {0, 8, 3}) {
      const int64_t stride = size + gap;
      const std::vector<float> values = RandomFloats(static_cast<size_t>(3 * stride), 3, 40);
      const DeviceArray x = DeviceArray::From(stream, kF32, values);
      const HeddleCudaSoftCap op = {.cap = kCap, .x = Matrix(x, kF32, 3, size, stride)};
      EXPECT_OK(Api().soft_cap(stream.get(), &op));
      std::vector<double> expected(values.begin(), values.end());
      for (int64_t i = 0; i < 3 * stride; ++i) {
        double& value = expected[static_cast<size_t>(i)];
        if (i % stride < size) value = kCap * std::tanh(value / kCap);
      }
      EXPECT_NEAR(MaxError(x.ToHost(), expected), 0, 1e-5);
    }
  }
}

TEST(CudaSoftCap, "sends infinities to the cap") {
  TestStream stream;
  const DeviceArray x = DeviceArray::From(stream, kF32, {INFINITY, -INFINITY, 0, 1e30f});
  const HeddleCudaSoftCap op = {.cap = 5, .x = Matrix(x, kF32, 1, 4)};
  EXPECT_OK(Api().soft_cap(stream.get(), &op));
  EXPECT_TRUE((x.ToHost() == std::vector<float>{5, -5, 0, 5}));
}

TEST(CudaGatherRows, "copies rows in any order, bit for bit") {
  TestStream stream;
  const std::vector<int32_t> rows = {3, 0, 0, 10, 7};
  const auto num_rows = static_cast<int64_t>(rows.size());
  const DeviceArray device_rows = DeviceArray::Ints(stream, rows);
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (int64_t size : kSizes) {
      for (int64_t gap : {0, 8, 3}) {
        const int64_t stride = size + gap;
        const std::vector<float> values = Rounded(dtype, RandomFloats(static_cast<size_t>(11 * stride), 4));
        const DeviceArray x = DeviceArray::From(stream, dtype, values);
        const DeviceArray y = DeviceArray::Poisoned(stream, dtype, static_cast<size_t>(num_rows * stride));
        const HeddleCudaGatherRows op = {.x = Matrix(x, dtype, 11, size, stride),
                                         .rows = device_rows.As<int32_t>(),
                                         .y = Matrix(y, dtype, num_rows, size, stride)};
        EXPECT_OK(Api().gather_rows(stream.get(), &op));
        std::vector<float> expected;
        for (int32_t row : rows) {
          const auto begin = values.begin() + row * stride;
          expected.insert(expected.end(), begin, begin + size);
        }
        const std::vector<float> result = y.ToHost();
        EXPECT_TRUE(RowsOf(result, num_rows, size, stride) == expected);
        EXPECT_TRUE(GapsAreNaN(result, num_rows, size, stride));
      }
    }
  }
}

TEST(CudaGatherRows, "gives zeros for a row that is not there") {
  TestStream stream;
  const DeviceArray x = DeviceArray::From(stream, kF32, {1, 2, 3, 4});
  const DeviceArray rows = DeviceArray::Ints(stream, {2, -1, 1});
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, 6);
  const HeddleCudaGatherRows op = {.x = Matrix(x, kF32, 2, 2), .rows = rows.As<int32_t>(), .y = Matrix(y, kF32, 3, 2)};
  EXPECT_OK(Api().gather_rows(stream.get(), &op));
  EXPECT_TRUE((y.ToHost() == std::vector<float>{0, 0, 0, 0, 3, 4}));
}

// What fill_random promises of element `index`.
double ReferenceNormal(uint64_t seed, uint64_t index) {
  const uint64_t group = index / 4;
  const PhiloxCounter bits = Philox4x32({static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), 0, 0},
                                        {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const size_t pair = index % 4 / 2 * 2;
  const double radius = std::sqrt(-2 * std::log(bits[pair] * 0x1p-32 + 0x1p-33));
  const double angle = 2 * std::numbers::pi * bits[pair + 1] * 0x1p-32;
  return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

TEST(CudaFillRandom, "gives each element the number of its seed and place, whatever the stride and the size") {
  TestStream stream;
  constexpr uint64_t kSeed = 0x123456789abcdef0;
  constexpr float kDeviation = 0.25f;
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (int64_t size : kSizes) {
      for (int64_t gap : {0, 8, 3}) {
        const int64_t stride = size + gap;
        const DeviceArray y = DeviceArray::Poisoned(stream, dtype, static_cast<size_t>(3 * stride));
        EXPECT_OK(Api().fill_random(stream.get(), Matrix(y, dtype, 3, size, stride), kSeed, kDeviation));
        std::vector<double> expected;
        for (int64_t i = 0; i < 3 * size; ++i) {
          expected.push_back(kDeviation * ReferenceNormal(kSeed, static_cast<uint64_t>(i)));
        }
        const std::vector<float> result = y.ToHost();
        EXPECT_NEAR(RelativeError(RowsOf(result, 3, size, stride), expected), 0, Tolerance(dtype));
        EXPECT_TRUE(GapsAreNaN(result, 3, size, stride));
      }
    }
  }
}

TEST(CudaFillRandom, "draws from a normal distribution, other numbers for another seed") {
  TestStream stream;
  constexpr int64_t kCount = 1 << 20;
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, kCount);
  const auto draw = [&](uint64_t seed) {
    EXPECT_OK(Api().fill_random(stream.get(), Matrix(y, kF32, 1, kCount), seed, 2));
    return y.ToHost();
  };
  const std::vector<float> values = draw(1);
  double sum = 0;
  double squares = 0;
  double fourths = 0;
  for (double value : values) {
    sum += value;
    squares += value * value;
    fourths += value * value * value * value;
  }
  // Five standard errors each; the fourth moment of this distribution is 3 * 2^4.
  EXPECT_NEAR(sum / kCount, 0, 5 * 2 / 1024.0);
  EXPECT_NEAR(squares / kCount, 4, 5 * 4 * std::sqrt(2.0) / 1024);
  EXPECT_NEAR(fourths / kCount, 48, 5 * 16 * std::sqrt(96.0) / 1024);
  EXPECT_TRUE(draw(2) != values);
  EXPECT_TRUE(draw(1) == values);
}

TEST(CudaElementwise, "does nothing for no rows, and refuses what does not fit together") {
  TestStream stream;
  const DeviceArray memory = DeviceArray::Poisoned(stream, kF32, 64);
  const HeddleCudaMatrix matrix = Matrix(memory, kF32, 2, 8);
  const HeddleCudaMatrix none = Matrix(memory, kF32, 0, 8);
  const HeddleCudaMatrix half = Matrix(memory, kHeddleCudaFloat16, 2, 8);
  const HeddleCudaMatrix longer = Matrix(memory, kF32, 2, 9);
  const auto add_bias = [&](const float* bias, const HeddleCudaMatrix& y) {
    const HeddleCudaAddBias op = {.bias = bias, .y = y};
    return Api().add_bias(stream.get(), &op);
  };
  EXPECT_OK(add_bias(nullptr, none));
  EXPECT_STATUS(add_bias(nullptr, matrix), kHeddleCudaInvalid);
  const auto soft_cap = [&](float cap, const HeddleCudaMatrix& x) {
    const HeddleCudaSoftCap op = {.cap = cap, .x = x};
    return Api().soft_cap(stream.get(), &op);
  };
  EXPECT_OK(soft_cap(1, none));
  EXPECT_STATUS(soft_cap(0, matrix), kHeddleCudaInvalid);
  EXPECT_STATUS(soft_cap(NAN, matrix), kHeddleCudaInvalid);
  EXPECT_STATUS(soft_cap(1, half), kHeddleCudaInvalid);
  const auto gather = [&](const HeddleCudaMatrix& x, const int32_t* rows, const HeddleCudaMatrix& y) {
    const HeddleCudaGatherRows op = {.x = x, .rows = rows, .y = y};
    return Api().gather_rows(stream.get(), &op);
  };
  EXPECT_OK(gather(matrix, nullptr, none));
  EXPECT_STATUS(gather(matrix, nullptr, matrix), kHeddleCudaInvalid);
  EXPECT_STATUS(gather(half, memory.As<int32_t>(), matrix), kHeddleCudaInvalid);
  EXPECT_STATUS(gather(longer, memory.As<int32_t>(), matrix), kHeddleCudaInvalid);
  EXPECT_OK(Api().fill_random(stream.get(), none, 1, 1));
}

}  // namespace
}  // namespace heddle::test
