#include "sampler/philox.h"

#include "test.h"

namespace heddle {
namespace {

// Known answers published with Random123, the generator's reference implementation.
TEST(Philox, "gives the published answers for zeros, ones and the digits of pi") {
  const PhiloxCounter zeros = Philox4x32({0, 0, 0, 0}, {0, 0});
  EXPECT_TRUE((zeros == PhiloxCounter{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  const PhiloxCounter ones =
      Philox4x32({0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}, {0xffffffffu, 0xffffffffu});
  EXPECT_TRUE((ones == PhiloxCounter{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  const PhiloxCounter pi = Philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u});
  EXPECT_TRUE((pi == PhiloxCounter{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Philox, "makes a token's random number of the first two words, most significant first") {
  // 0x6627e8d5e169c58d >> 11, over 2^53.
  EXPECT_EQ(UniformForToken(0, 0, 0), static_cast<double>(0x6627e8d5e169c58dull >> 11) / 9007199254740992.0);
}

TEST(Philox, "depends on every bit of seed and position, and on the sequence") {
  const double base = UniformForToken(0, 0, 0);
  for (int bit = 0; bit < 64; ++bit) {
    EXPECT_TRUE(UniformForToken(uint64_t{1} << bit, 0, 0) != base);
    EXPECT_TRUE(UniformForToken(0, 0, uint64_t{1} << bit) != base);
  }
  for (int bit = 0; bit < 32; ++bit) EXPECT_TRUE(UniformForToken(0, uint32_t{1} << bit, 0) != base);
}

TEST(Philox, "stays in [0, 1) with the mean and variance of a uniform distribution") {
  constexpr int kCount = 100000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const double u = UniformForToken(7, 3, static_cast<uint64_t>(i));
    EXPECT_TRUE(u >= 0 && u < 1);
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
  }
  EXPECT_NEAR(sum / kCount, 0.5, 0.005);
  EXPECT_NEAR(squares / kCount, 1.0 / 12, 0.002);
}

}  // namespace
}  // namespace heddle
