// One row of a matrix on its way to 8 bits and to 2:4.
#include "compress/rows.h"

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

std::vector<int> Kept(const std::vector<float>& scores) {
  std::vector<uint8_t> mask(static_cast<size_t>(MaskBytes(static_cast<int64_t>(scores.size()))), 0xff);
  TwoOfFourMask(scores, mask.data());
  std::vector<int> kept;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (IsKept(mask.data(), static_cast<int64_t>(i))) kept.push_back(static_cast<int>(i));
  }
  return kept;
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

TEST(TwoOfFourMask, "keeps the two largest of every four, of equals the first") {
  EXPECT_TRUE(Kept({1, 4, 2, 3, 9, 8, 7, 6, 0, 0, 1, 0}) == (std::vector<int>{1, 3, 4, 5, 8, 10}));
  EXPECT_TRUE(Kept({5, 5, 5, 5}) == (std::vector<int>{0, 1}));
}

TEST(TwoOfFourMask, "keeps two of every four whatever the scores are") {
  Random random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> scores(4);
    for (float& score : scores) score = random.Below(3) == 0 ? NAN : static_cast<float>(random.Below(3));
    EXPECT_EQ(Kept(scores).size(), size_t{2});
  }
}

TEST(IsTwoOfFour, "holds for what a mask was applied to, and not for one value more") {
  std::vector<float> row = {1, -4, 2, 3, 9, -8, 7, 6};
  EXPECT_TRUE(!IsTwoOfFour(row));
  uint8_t mask = 0;
  TwoOfFourMask(std::vector<float>{1, 4, 2, 3, 9, 8, 7, 6}, &mask);
  ApplyMask(&mask, row);
  EXPECT_TRUE(row == (std::vector<float>{0, -4, 0, 3, 9, -8, 0, 0}));
  EXPECT_TRUE(IsTwoOfFour(row));
  row[6] = 1e-30f;
  EXPECT_TRUE(!IsTwoOfFour(row));
}

}  // namespace
}  // namespace heddle
