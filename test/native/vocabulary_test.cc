#include "text/vocabulary.h"

#include "test.h"

namespace heddle {
namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;

TEST(Vocabulary, "gives each token its bytes, which may be empty, zero or no character") {
  const Vocabulary vocabulary("ab\0\xff"s, {0, 2, 2, 3, 4}, {0, 1, 0, 0});
  EXPECT_EQ(vocabulary.size(), 4);
  EXPECT_EQ(vocabulary.bytes(0), "ab"sv);
  EXPECT_EQ(vocabulary.bytes(1), ""sv);
  EXPECT_EQ(vocabulary.bytes(2), "\0"sv);
  EXPECT_EQ(vocabulary.bytes(3), "\xff"sv);
  EXPECT_TRUE(vocabulary.IsSpecial(1));
  EXPECT_TRUE(!vocabulary.IsSpecial(0));
}

TEST(Vocabulary, "has nothing, and nothing special, for ids that it does not know") {
  const Vocabulary vocabulary("ab", {0, 1, 2}, {1, 1});
  for (const int32_t id : {-2147483647 - 1, -1, 2, 2147483647}) {
    EXPECT_EQ(vocabulary.bytes(id), ""sv);
    EXPECT_TRUE(!vocabulary.IsSpecial(id));
  }
  EXPECT_EQ(Vocabulary("", {0}, {}).bytes(0), ""sv);
}

TEST(Vocabulary, "refuses a table that does not cover its bytes in order") {
  EXPECT_ERROR(ErrorCode::kInternal, Vocabulary("ab", {}, {}));
  EXPECT_ERROR(ErrorCode::kInternal, Vocabulary("ab", {0, 1, 2}, {0}));
  EXPECT_ERROR(ErrorCode::kInternal, Vocabulary("ab", {0, 1}, {0}));
  EXPECT_ERROR(ErrorCode::kInternal, Vocabulary("ab", {1, 2}, {0}));
  EXPECT_ERROR(ErrorCode::kInternal, Vocabulary("ab", {0, 3}, {0}));
  EXPECT_ERROR(ErrorCode::kInternal, Vocabulary("ab", {0, 2, 1, 2}, {0, 0, 0}));
}

}  // namespace
}  // namespace heddle
