// One row of a matrix on its way to 2:4.
#include "compress/rows.h"

#include "tensor_testing.h"

namespace heddle {
namespace {

using test::Random;

std::vector<int> Kept(const std::vector<float>& scores) {
  std::vector<uint8_t> mask(static_cast<size_t>(MaskBytes(static_cast<int64_t>(scores.size()))), 0xff);
  TwoOfFourMask(scores, mask.data());
  std::vector<int> kept;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (IsKept(mask.data(), static_cast<int64_t>(i))) kept.push_back(static_cast<int>(i));
  }
  return kept;
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
