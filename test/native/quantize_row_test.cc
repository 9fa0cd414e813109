// One row of a matrix on its way to 8 bits.
#include "tensor/quantize_row.h"

#include "tensor_testing.h"

namespace heddle {
namespace {

using test::Random;

std::vector<float> Dequantised(const std::vector<float>& row, DType dtype, float* scale) {
  std::vector<int8_t> integers(row.size());
  *scale = QuantizeRow(row, dtype, integers.data());
  std::vector<float> values;
  for (const int8_t integer : integers) values.push_back(static_cast<float>(integer) * *scale);
  return values;
}

TEST(QuantizeRow, "is off by half a step at most, and maps the largest magnitude to 127") {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    Random random(1);
    std::vector<float> row(333);
    for (float& value : row) value = random.Uniform(-3, 3);
    row[7] = -3.5f;
    float scale = 0;
    const std::vector<float> values = Dequantised(row, dtype, &scale);
    EXPECT_NEAR(values[7] / scale, -127, 0);
    // A scale that is rounded to fewer bits may make the largest value 127.4 steps long.
    for (size_t i = 0; i < row.size(); ++i) EXPECT_NEAR(values[i], row[i], 0.5005 * scale);
  }
}

TEST(QuantizeRow, "rounds half to even") {
  std::vector<int8_t> integers(6);
  EXPECT_EQ(QuantizeRow(std::vector<float>{127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f}, DType::kFloat32, integers.data()), 1);
  EXPECT_TRUE(integers == (std::vector<int8_t>{127, 0, 2, 2, 0, -2}));
}

TEST(QuantizeRow, "has a scale that its dtype can hold, above zero, also for rows of zeros and of next to nothing") {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    float scale = 0;
    EXPECT_TRUE(Dequantised({0, 0, -0.0f}, dtype, &scale) == (std::vector<float>{0, 0, 0}));
    EXPECT_EQ(scale, 1);
    for (const float largest : {1e-30f, 1e-7f, 0.3f, 60000.0f}) {
      Dequantised({largest, 0}, dtype, &scale);
      uint32_t stored = 0;
      StoreFloat(dtype, &stored, 0, scale);
      EXPECT_EQ(LoadFloat(dtype, &stored, 0), scale);
      EXPECT_TRUE(scale > 0);
    }
  }
}

TEST(QuantizeRow, "cuts nothing off where its dtype has few scales so small") {
  for (const float largest : {1.1e-5f, 2e-5f, 3.3e-5f, 1e-3f}) {
    float scale = 0;
    const std::vector<float> values = Dequantised({largest, -largest / 2}, DType::kFloat16, &scale);
    EXPECT_NEAR(values[0], largest, 0.5005 * scale);
    EXPECT_NEAR(values[1], -largest / 2, 0.5005 * scale);
  }
}

TEST(AllFinite, "sees what is no number") {
  EXPECT_TRUE(AllFinite(std::vector<float>{1, -3e38f}));
  EXPECT_TRUE(!AllFinite(std::vector<float>{1, NAN}));
  EXPECT_TRUE(!AllFinite(std::vector<float>{-INFINITY, 1}));
}

}  // namespace
}  // namespace heddle
