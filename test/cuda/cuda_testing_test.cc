// The comparisons that the other tests rest on; no device is needed.
#include "cuda_testing.h"

#include <cmath>
#include <limits>

namespace heddle::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(CudaTesting, "rounds to nearest, ties to even") {
  // 1 + 2^-11 and 1 + 2^-8 lie half-way between neighbours.
  EXPECT_TRUE((Rounded(kHeddleCudaFloat16, {1.00048828125f, 1.0005f, 1e6f}) ==
               std::vector<float>{1.0f, 1.0009765625f, std::numeric_limits<float>::infinity()}));
  EXPECT_TRUE(
      (Rounded(kHeddleCudaBFloat16, {1.00390625f, 1.004f, 1e6f}) == std::vector<float>{1.0f, 1.0078125f, 999424.0f}));
  EXPECT_EQ(Rounded(kHeddleCudaFloat32, {0.1f})[0], 0.1f);
}

TEST(CudaTesting, "measures errors, and lets no NaN and no missing element pass") {
  EXPECT_NEAR(RelativeError({3, 4}, {3, 5}), 1 / std::sqrt(34.0), 1e-12);
  EXPECT_NEAR(MaxError({3, 4}, {3.5, 4}), 0.5, 1e-12);
  EXPECT_EQ(RelativeError({0, 0}, {0, 0}), 0.0);
  EXPECT_TRUE(std::isinf(RelativeError({1}, {0})));
  EXPECT_TRUE(std::isnan(RelativeError({1, kNaN}, {1, 2})));
  EXPECT_TRUE(std::isnan(MaxError({1, kNaN}, {1, 2})));
  EXPECT_TRUE(std::isnan(RelativeError({1}, {1, 2})));
  EXPECT_TRUE(std::isnan(MaxError({1}, {1, 2})));
}

TEST(CudaTesting, "tells rows from the gaps between them") {
  const std::vector<float> array = {1, 2, kNaN, 3, 4, kNaN, kNaN};
  EXPECT_TRUE((RowsOf(array, 2, 2, 3) == std::vector<float>{1, 2, 3, 4}));
  EXPECT_TRUE(GapsAreNaN(array, 2, 2, 3));
  EXPECT_TRUE(!GapsAreNaN({1, 2, kNaN, 3, 4, 5, kNaN}, 2, 2, 3));
  EXPECT_TRUE(!GapsAreNaN({1, 2, kNaN, 3, 4, kNaN, 7}, 2, 2, 3));
}

TEST(CudaTesting, "draws the same random numbers for the same seed") {
  EXPECT_TRUE(RandomFloats(5, 1) == RandomFloats(5, 1));
  EXPECT_TRUE(RandomFloats(5, 1) != RandomFloats(5, 2));
}

}  // namespace
}  // namespace heddle::test
