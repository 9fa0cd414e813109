#include "scheduler/repetition.h"

#include <random>
#include <vector>

#include "test.h"

namespace heddle {
namespace {

bool Repeats(const std::vector<int32_t>& tokens, int min_size, int max_size, int count) {
  return HasRepetition(tokens, {.max_pattern_size = max_size, .min_pattern_size = min_size, .min_count = count});
}

TEST(Repetition, "sees one token repeated often enough, at the end only") {
  EXPECT_TRUE(Repeats({1, 2, 7, 7, 7}, 1, 1, 3));
  EXPECT_TRUE(!Repeats({1, 2, 7, 7}, 1, 1, 3));
  EXPECT_TRUE(!Repeats({7, 7, 7, 1}, 1, 1, 3));
}

TEST(Repetition, "sees a pattern that ends with the last token") {
  EXPECT_TRUE(Repeats({9, 1, 2, 3, 1, 2, 3}, 1, 3, 2));
  EXPECT_TRUE(!Repeats({9, 1, 2, 3, 1, 2, 4}, 1, 3, 2));
  EXPECT_TRUE(!Repeats({9, 1, 2, 3, 1, 2, 3}, 1, 2, 2));
  EXPECT_TRUE(!Repeats({2, 3, 1, 2, 3}, 1, 3, 2));
}

TEST(Repetition, "heeds the smallest size, of which 0 means 1") {
  EXPECT_TRUE(!Repeats({5, 5, 5}, 2, 8, 2));
  EXPECT_TRUE(Repeats({5, 5, 5, 5}, 2, 8, 2));
  EXPECT_TRUE(Repeats({5, 5}, 0, 8, 2));
}

TEST(Repetition, "is never seen when switched off, in nothing, or for parameters that mean nothing") {
  const std::vector<int32_t> same(100, 5);
  EXPECT_TRUE(!HasRepetition(same, {}));
  EXPECT_TRUE(!Repeats(same, 1, 0, 2));
  EXPECT_TRUE(!Repeats(same, 1, 4, 0));
  EXPECT_TRUE(!Repeats(same, 1, 4, 1));
  EXPECT_TRUE(!Repeats(same, 5, 4, 2));
  EXPECT_TRUE(!Repeats(same, -3, -4, 2));
  EXPECT_TRUE(!Repeats(same, 1, 4, -2));
  EXPECT_TRUE(!Repeats({}, 1, 4, 2));
  EXPECT_TRUE(!Repeats(same, 2147483647, 2147483647, 2147483647));
  EXPECT_TRUE(Repeats(same, 1, 2147483647, 100));
}

TEST(Repetition, "agrees with a comparison of every pattern with every repetition") {
  std::mt19937 random(5);
  int seen = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<int32_t> tokens(random() % 40);
    const uint32_t period = 1 + random() % 9;
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = i >= period && random() % 30 != 0 ? tokens[i - period] : static_cast<int32_t>(random() % 2);
    }
    const int min_size = static_cast<int>(random() % 5);
    const int max_size = static_cast<int>(random() % 10);
    const int count = static_cast<int>(random() % 6);
    bool expected = false;
    for (int size = std::max(1, min_size); size <= max_size && count >= 2; ++size) {
      const int length = size * count;
      bool same = length <= static_cast<int>(tokens.size());
      for (int i = size; i < length && same; ++i)
        same = tokens[tokens.size() - i - 1] == tokens[tokens.size() - i - 1 + size];
      expected = expected || same;
    }
    EXPECT_EQ(Repeats(tokens, min_size, max_size, count), expected);
    seen += expected ? 1 : 0;
  }
  EXPECT_TRUE(seen > 2000 && seen < 18000);
}

}  // namespace
}  // namespace heddle
