// The vector primitives and elementary functions: the portable ones directly, those of every other instruction set
// through the kernels that are little more than a call of them.
#define HEDDLE_ISA scalar
#include "ops/cpu/simd_math.h"

#include <cmath>
#include <limits>

#include "base/dtype.h"
#include "ops/cpu/kernels.h"
#include "tensor_testing.h"

namespace heddle {
namespace {

namespace simd = ops::cpu::scalar;
using ops::cpu::Kernels;
using ops::cpu::KernelsFor;
using ops::cpu::Storage;
using test::Random;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// |actual - expected| in units of expected's last place.
double UlpError(float actual, double expected) {
  const float magnitude = std::abs(static_cast<float>(expected));
  return std::abs(actual - expected) / (std::nextafter(magnitude, kInfinity) - double{magnitude});
}

float ExpOf(const Kernels& kernels, float x) {
  kernels.exp_and_sum(0, &x, 1);
  return x;
}

float TanhOf(const Kernels& kernels, float x) {
  kernels.soft_cap(1, &x, 1);
  return x;
}

// A spread over all magnitudes with both signs.
template <typename Visit>
void ForFloats(uint32_t step, const Visit& visit) {
  for (uint64_t bits = 0; bits <= 0xffffffffu; bits += step) visit(std::bit_cast<float>(static_cast<uint32_t>(bits)));
}

TEST(Simd, "loads and stores a part of a vector and leaves the rest alone") {
  const float source[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  for (int count = 0; count <= 16; ++count) {
    float lanes[16];
    float out[16] = {};
    const simd::F32x16 part = simd::LoadPartial(source, count);
    simd::Store(lanes, part);
    simd::StorePartial(out, simd::Load(source), count);
    for (int i = 0; i < 16; ++i) {
      EXPECT_EQ(lanes[i], i < count ? source[i] : 0.0f);
      EXPECT_EQ(out[i], i < count ? source[i] : 0.0f);
    }
  }
}

TEST(Simd, "keeps the lanes between two bounds, wherever they lie") {
  for (int begin : {-5, 0, 3, 15, 16, 20}) {
    for (int end : {-1, 0, 4, 16, 40}) {
      float lanes[16];
      simd::Store(lanes, simd::KeepLanes(simd::Set1(1), begin, end, -kInfinity));
      for (int i = 0; i < 16; ++i) EXPECT_EQ(lanes[i], begin <= i && i < end ? 1.0f : -kInfinity);
    }
  }
}

TEST(Simd, "rounds to the nearest integer, ties to even") {
  const float in[16] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49f, -0.51f, 126.5f, -127.2f};
  const float expected[16] = {0, 2, 2, 0, -2, 0, -1, 126, -127};
  float lanes[16];
  simd::Store(lanes, simd::Round(simd::Load(in)));
  for (int i = 0; i < 16; ++i) EXPECT_EQ(lanes[i], expected[i]);
}

TEST(Simd, "takes the second operand of a minimum or maximum with NaN") {
  float lanes[16];
  simd::Store(lanes, simd::Max(simd::Set1(kNaN), simd::Set1(1)));
  EXPECT_EQ(lanes[0], 1.0f);
  simd::Store(lanes, simd::Min(simd::Set1(1), simd::Set1(kNaN)));
  EXPECT_TRUE(std::isnan(lanes[0]));
  EXPECT_EQ(simd::EqualLanes(simd::Set1(kNaN), simd::Set1(kNaN)), 0u);
  EXPECT_EQ(simd::EqualLanes(simd::Set1(0), simd::Set1(-0.0f)), 0xffffu);
}

TEST(Simd, "adds lanes in the documented tree") {
  float lanes[16];
  Random random(1);
  for (float& lane : lanes) lane = random.Uniform(-1e3f, 1e3f);
  float expected[16];
  std::copy(lanes, lanes + 16, expected);
  for (int width : {8, 4, 2, 1}) {
    for (int i = 0; i < width; ++i) expected[i] = expected[i] + expected[i + width];
  }
  EXPECT_EQ(simd::ReduceAdd(simd::Load(lanes)), expected[0]);
  EXPECT_EQ(simd::ReduceMax(simd::Load(lanes)), *std::max_element(lanes, lanes + 16));
}

TEST(Simd, "computes exponentials to within 1.1 units in the last place") {
  for (CpuIsa isa : test::RunnableIsas()) {
    const Kernels& kernels = KernelsFor(isa);
    double worst = 0;
    ForFloats(29989, [&](float x) {
      if (x >= -87.3f && x <= 88.3f) worst = std::max(worst, UlpError(ExpOf(kernels, x), std::exp(double{x})));
    });
    EXPECT_TRUE(worst <= 1.1);
  }
}

TEST(Simd, "computes exponentials exactly where it matters") {
  for (CpuIsa isa : test::RunnableIsas()) {
    const Kernels& kernels = KernelsFor(isa);
    EXPECT_EQ(ExpOf(kernels, 0), 1.0f);
    EXPECT_EQ(ExpOf(kernels, -0.0f), 1.0f);
    EXPECT_EQ(std::bit_cast<uint32_t>(ExpOf(kernels, -kInfinity)), 0u);
    EXPECT_EQ(std::bit_cast<uint32_t>(ExpOf(kernels, -1e30f)), 0u);
    EXPECT_EQ(std::bit_cast<uint32_t>(ExpOf(kernels, -87.8f)), 0u);
    EXPECT_EQ(ExpOf(kernels, 88.5f), kInfinity);
    EXPECT_EQ(ExpOf(kernels, kInfinity), kInfinity);
    EXPECT_TRUE(std::isnan(ExpOf(kernels, kNaN)));
  }
}

TEST(Simd, "computes tanh to within 3 units in the last place from denormals to saturation") {
  for (CpuIsa isa : test::RunnableIsas()) {
    const Kernels& kernels = KernelsFor(isa);
    double worst = 0;
    ForFloats(29989, [&](float x) {
      if (!std::isnan(x)) worst = std::max(worst, UlpError(TanhOf(kernels, x), std::tanh(double{x})));
    });
    EXPECT_TRUE(worst <= 3);
    EXPECT_EQ(TanhOf(kernels, kInfinity), 1.0f);
    EXPECT_EQ(TanhOf(kernels, -kInfinity), -1.0f);
    EXPECT_TRUE(std::isnan(TanhOf(kernels, kNaN)));
  }
}

TEST(Simd, "widens every 16-bit float exactly") {
  for (CpuIsa isa : test::RunnableIsas()) {
    for (Storage storage : {Storage::kBFloat16, Storage::kFloat16}) {
      int wrong = 0;
      for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
        const auto stored = static_cast<uint16_t>(bits);
        const float expected = storage == Storage::kBFloat16 ? BFloat16ToFloat(stored) : Float16ToFloat(stored);
        float actual = 0;
        KernelsFor(isa).widen(storage, &stored, 1, 1, &actual);
        wrong += !(actual == expected || (std::isnan(actual) && std::isnan(expected)));
      }
      EXPECT_EQ(wrong, 0);
    }
  }
}

TEST(Simd, "narrows to the 16-bit floats as base/dtype.h does, NaN to NaN") {
  for (CpuIsa isa : test::RunnableIsas()) {
    int wrong = 0;
    ForFloats(29989, [&](float x) {
      uint16_t bfloat = 0;
      uint16_t half = 0;
      KernelsFor(isa).narrow(Storage::kBFloat16, &x, 1, &bfloat, 1);
      KernelsFor(isa).narrow(Storage::kFloat16, &x, 1, &half, 1);
      if (std::isnan(x)) {
        wrong += !std::isnan(BFloat16ToFloat(bfloat)) || !std::isnan(Float16ToFloat(half));
      } else {
        wrong += bfloat != FloatToBFloat16(x) || half != FloatToFloat16(x);
      }
    });
    EXPECT_EQ(wrong, 0);
  }
}

TEST(Simd, "gives AVX2 and AVX-512 the same bits") {
  const std::vector<CpuIsa> isas = test::RunnableIsas();
  if (isas.back() < CpuIsa::kAvx512) SKIP("no AVX-512 here");
  const Kernels& avx2 = KernelsFor(CpuIsa::kAvx2);
  const Kernels& avx512 = KernelsFor(CpuIsa::kAvx512);
  int wrong = 0;
  ForFloats(29989, [&](float x) {
    if (std::isnan(x)) return;
    wrong += std::bit_cast<uint32_t>(ExpOf(avx2, x)) != std::bit_cast<uint32_t>(ExpOf(avx512, x));
    wrong += std::bit_cast<uint32_t>(TanhOf(avx2, x)) != std::bit_cast<uint32_t>(TanhOf(avx512, x));
  });
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace heddle
