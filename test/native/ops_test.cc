// Every op but attention and the matrix product, against its reference.
#include "ops/ops.h"

#include <cmath>
#include <functional>
#include <limits>

#include "ops/cpu/reference.h"
#include "tensor_testing.h"

namespace heddle {
namespace {

using ops::Activation;
using test::kAwkwardSizes;
using test::MaxError;
using test::Random;
using test::SameBits;
using test::TestTensor;

constexpr DType kF32 = DType::kFloat32;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Runs `body(stream)` on each instruction set with 1 and 3 threads.
template <typename Body>
void ForStreams(const Body& body) {
  for (CpuIsa isa : test::RunnableIsas()) {
    for (int num_threads : {1, 3}) {
      Stream stream(num_threads, true, isa);
      body(stream);
    }
  }
}

TEST(Embedding, "looks rows up in every dtype, scales them, and gives zeros for ids of other shards") {
  Random random(1);
  const std::vector<int32_t> ids = {5, 7, 4, 11, 12, 1000000, 0, 9};
  for (DType dtype : {kF32, DType::kBFloat16, DType::kFloat16}) {
    for (int64_t hidden : kAwkwardSizes) {
      TestTensor table(dtype, {7, hidden}, 3);
      table.Fill(random);
      TestTensor expected(kF32, {8, hidden});
      ops::reference::Embedding(ids, table, 5, 1.7f, expected);
      ForStreams([&](Stream& stream) {
        TestTensor y(kF32, {8, hidden}, 1);
        ops::Embedding(stream, ids, table, 5, 1.7f, y);
        EXPECT_TRUE(SameBits(y, expected));
      });
    }
  }
}

TEST(Embedding, "turns negative zero into zero, so that shards add up exactly") {
  const std::vector<int32_t> ids = {0};
  TestTensor table(kF32, {1, 2});
  table.Row(0)[0] = -0.0f;
  table.Row(0)[1] = 1;
  ForStreams([&](Stream& stream) {
    TestTensor y(kF32, {1, 2});
    ops::Embedding(stream, ids, table, 0, 1, y);
    EXPECT_TRUE(!std::signbit(y.Row(0)[0]));
    ops::Embedding(stream, ids, table, 0, -1, y);
    EXPECT_EQ(y.Row(0)[1], -1.0f);
  });
}

TEST(Embedding, "gives the same from a packed matrix") {
  Random random(2);
  const std::vector<int32_t> ids = {18, 0, 3, 40, 16};
  for (DType dtype : {kF32, DType::kBFloat16}) {
    TestTensor table(dtype, {19, 111});
    table.Fill(random);
    PackedMatrix packed({.dtype = dtype}, 19, 111, {0, 111});
    packed.PackRows(0, table);
    ForStreams([&](Stream& stream) {
      TestTensor expected(kF32, {5, 111});
      TestTensor y(kF32, {5, 111});
      ops::Embedding(stream, ids, table, 0, 0.3f, expected);
      ops::Embedding(stream, ids, packed, 0, 0.3f, y);
      EXPECT_TRUE(SameBits(y, expected));
    });
  }
}

TEST(RmsNorm, "normalises rows of any size, strided or not, in place or not") {
  Random random(3);
  for (int64_t size : kAwkwardSizes) {
    for (int64_t gap : {0, 5}) {
      TestTensor x(kF32, {5, size}, gap);
      TestTensor weight(kF32, {size});
      x.Fill(random, -3, 3);
      weight.Fill(random);
      TestTensor expected(kF32, {5, size});
      ops::reference::RmsNorm(x, weight, 1e-5f, expected);
      ForStreams([&](Stream& stream) {
        TestTensor y(kF32, {5, size});
        ops::RmsNorm(stream, x, weight, 1e-5f, y);
        EXPECT_NEAR(MaxError(y, expected), 0, 5e-7);
        TestTensor in_place = x.DeepCopy();
        ops::RmsNorm(stream, in_place, weight, 1e-5f, in_place);
        EXPECT_TRUE(SameBits(in_place, y));
      });
    }
  }
}

TEST(RmsNorm, "normalises each head of a strided view of three dimensions alone") {
  Random random(4);
  TestTensor x(kF32, {3, 5, 24}, 70);
  TestTensor weight(kF32, {24});
  x.Fill(random);
  weight.Fill(random);
  ForStreams([&](Stream& stream) {
    TestTensor y = x.DeepCopy();
    ops::RmsNorm(stream, y, weight, 1e-6f, y);
    for (int64_t token = 0; token < 3; ++token) {
      for (int64_t head = 0; head < 5; ++head) {
        const TensorView in(x.Row(token) + head * 24, kF32, {1, 24});
        const TensorView out(y.Row(token) + head * 24, kF32, {1, 24});
        TestTensor alone(kF32, {1, 24});
        ops::RmsNorm(stream, in, weight, 1e-6f, alone);
        EXPECT_TRUE(SameBits(out, alone));
      }
    }
  });
}

TEST(RmsNorm, "stays finite for denormals, zeros and the largest squares that float32 holds") {
  TestTensor weight(kF32, {20});
  for (int i = 0; i < 20; ++i) weight.Row(0)[i] = 1;
  for (float value : {1e-40f, 0.0f, 1e18f}) {
    TestTensor x(kF32, {1, 20});
    for (int j = 0; j < 20; ++j) x.Row(0)[j] = value;
    TestTensor expected(kF32, {1, 20});
    ops::reference::RmsNorm(x, weight, 1e-6f, expected);
    ForStreams([&](Stream& stream) {
      TestTensor y(kF32, {1, 20});
      ops::RmsNorm(stream, x, weight, 1e-6f, y);
      EXPECT_NEAR(MaxError(y, expected), 0, 5e-7);
    });
  }
}

TEST(RmsNorm, "adds the residual first when fused, also with the output over the input") {
  Random random(5);
  for (int64_t size : kAwkwardSizes) {
    TestTensor x(kF32, {20, size});
    TestTensor residual(kF32, {20, size});
    TestTensor weight(kF32, {size});
    x.Fill(random);
    residual.Fill(random);
    weight.Fill(random);
    TestTensor expected_sum = residual.DeepCopy();
    TestTensor expected(kF32, {20, size});
    ops::reference::AddRmsNorm(x, expected_sum, weight, 1e-5f, expected);
    ForStreams([&](Stream& stream) {
      TestTensor y = x.DeepCopy();
      TestTensor sum = residual.DeepCopy();
      ops::AddRmsNorm(stream, y, sum, weight, 1e-5f, y);
      EXPECT_TRUE(SameBits(sum, expected_sum));
      EXPECT_NEAR(MaxError(y, expected), 0, 5e-7);
    });
  }
}

TEST(Add, "adds rows and biases of any size exactly, and touches nothing between rows") {
  Random random(6);
  for (int64_t size : {int64_t{1}, int64_t{15}, int64_t{111}, int64_t{989}, int64_t{9001}}) {
    TestTensor x(kF32, {4, size}, 2);
    TestTensor y(kF32, {4, size}, 7);
    TestTensor bias(kF32, {size});
    x.Fill(random, -1e30f, 1e30f);
    y.Fill(random);
    bias.Fill(random);
    TestTensor expected = y.DeepCopy();
    ops::reference::Add(x, expected);
    ops::reference::AddBias(bias, expected);
    ForStreams([&](Stream& stream) {
      TestTensor sum = y.DeepCopy();
      ops::Add(stream, x, sum);
      ops::AddBias(stream, bias, sum);
      EXPECT_TRUE(SameBits(sum, expected));
      for (int64_t row = 0; row < 3; ++row) EXPECT_TRUE(std::isnan(sum.Row(row)[size]));
    });
  }
}

// The activation of gate times up, exactly as given: products with x = 1 over a K of one.
void Gated(Stream& stream, Activation activation, const TensorView& gate_up, const TestTensor& y) {
  const int64_t size = gate_up.dim(1) / 2;
  const int64_t half = ops::GatedHalf(size);
  TestTensor one(kF32, {1, 1});
  one.Row(0)[0] = 1;
  for (int64_t row = 0; row < gate_up.dim(0); ++row) {
    PackedMatrix weight({.dtype = kF32}, 2 * half, 1, {0, 1});
    weight.PackRows(0, TensorView(gate_up.Row<float>(row), kF32, {size, 1}));
    weight.PackRows(half, TensorView(gate_up.Row<float>(row) + size, kF32, {size, 1}));
    ops::GatedMatmul(stream, activation, one, weight, y.view().Rows(row, row + 1));
  }
}

TEST(GatedMatmul, "activates to 1e-6 of the reference for every activation and size") {
  Random random(8);
  for (Activation activation : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    for (int64_t size : {int64_t{1}, int64_t{15}, int64_t{16}, int64_t{17}, int64_t{989}, int64_t{5003}}) {
      TestTensor gate_up(kF32, {3, 2 * size}, 3);
      gate_up.Fill(random, -12, 12);
      TestTensor expected(kF32, {3, size});
      ops::reference::GatedActivation(activation, gate_up, expected);
      ForStreams([&](Stream& stream) {
        TestTensor y(kF32, {3, size}, 1);
        Gated(stream, activation, gate_up, y);
        EXPECT_NEAR(MaxError(y, expected), 0, 1e-6);
      });
    }
  }
}

TEST(GatedMatmul, "is exact in the limits and passes NaN on") {
  const std::vector<float> inputs = {1e30f, -1e30f, 1e-40f, -1e-40f, 0, kInfinity, kNaN, -200};
  for (Activation activation : {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    TestTensor gate_up(kF32, {1, 16});
    for (int64_t i = 0; i < 8; ++i) {
      gate_up.Row(0)[i] = inputs[static_cast<size_t>(i)];
      gate_up.Row(0)[8 + i] = 1;
    }
    ForStreams([&](Stream& stream) {
      TestTensor y(kF32, {1, 8});
      Gated(stream, activation, gate_up, y);
      const float* out = y.Row(0);
      EXPECT_EQ(out[0], 1e30f);
      EXPECT_EQ(out[1], 0.0f);
      EXPECT_NEAR(out[2], 0.5e-40, 1e-44);
      EXPECT_NEAR(out[3], -0.5e-40, 1e-44);
      EXPECT_EQ(out[4], 0.0f);
      EXPECT_EQ(out[5], kInfinity);
      EXPECT_TRUE(std::isnan(out[6]));
      EXPECT_EQ(out[7], 0.0f);
    });
  }
}

TEST(SoftCap, "caps rows of any size, infinities included") {
  Random random(9);
  for (int64_t size : kAwkwardSizes) {
    TestTensor x(kF32, {2, size}, 4);
    x.Fill(random, -200, 200);
    x.Row(0)[0] = kInfinity;
    x.Row(1)[0] = -1e30f;
    x.Row(1)[size - 1] = 1e-40f;
    TestTensor expected = x.DeepCopy();
    ops::reference::SoftCap(30, expected);
    ForStreams([&](Stream& stream) {
      TestTensor y = x.DeepCopy();
      ops::SoftCap(stream, 30, y);
      EXPECT_NEAR(MaxError(y, expected), 0, 4e-7);
    });
  }
}

// Three KV heads of `group` query heads each, and the step's tokens in a cache of 96 slots.
struct NewTokens {
  NewTokens(DType dtype, int64_t head_dim, int64_t group, int cache_block_size)
      : block_size(cache_block_size),
        q(kF32, {7, 3 * group * head_dim}, 9),
        k(kF32, {7, 3 * head_dim}, 5),
        v(kF32, {7, 3 * head_dim}, 1),
        keys(dtype, {96 / block_size, 3, head_dim, block_size}),
        values(dtype, {96 / block_size, 3, block_size, head_dim}),
        key_scales(kF32, {dtype == DType::kInt8 ? 96 / block_size : 0, 3, block_size}),
        value_scales(key_scales.DeepCopy()) {
    Random random(10);
    for (TestTensor* tensor : {&q, &k, &v}) tensor->Fill(random, -10, 10);
  }
  NewTokens(const NewTokens& other)
      : block_size(other.block_size),
        q(other.q.DeepCopy()),
        k(other.k.DeepCopy()),
        v(other.v.DeepCopy()),
        keys(other.keys.DeepCopy()),
        values(other.values.DeepCopy()),
        key_scales(other.key_scales.DeepCopy()),
        value_scales(other.value_scales.DeepCopy()) {}

  ops::KVCacheView cache() const { return {keys, values, block_size, key_scales, value_scales}; }

  int block_size;
  std::vector<int32_t> positions = {0, 9, 3, 3, 1, 2, 8};
  std::vector<int64_t> slots = {0, 47, 31, 32, 95, 94, 16};
  TestTensor q, k, v, keys, values, key_scales, value_scales;
};

TEST(RotateAndStore, "writes keys transposed and values plain into their slots, and nothing else") {
  const TensorView no_angles(nullptr, kF32, {10, 0});
  for (DType dtype : {kF32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
    for (int64_t head_dim : {2, 16, 24, 80}) {
      for (int block_size : {16, 32, 48}) {
        const NewTokens tokens(dtype, head_dim, 1, block_size);
        NewTokens expected(tokens);
        ops::reference::StoreKVCache(expected.k, expected.v, expected.slots, expected.cache());
        ForStreams([&](Stream& stream) {
          NewTokens actual(tokens);
          ops::RotateAndStore(stream, actual.positions, no_angles, actual.q, actual.k, actual.v, actual.slots,
                              actual.cache());
          EXPECT_TRUE(SameBits(actual.keys, expected.keys));
          EXPECT_TRUE(SameBits(actual.values, expected.values));
          EXPECT_TRUE(SameBits(actual.key_scales, expected.key_scales));
          EXPECT_TRUE(SameBits(actual.value_scales, expected.value_scales));
          EXPECT_TRUE(SameBits(actual.q, tokens.q));
        });
      }
    }
  }
}

// A vector of 18 zeros but for its last two elements, stored in an int8 cache as the key and the value of one head.
struct RoundedPair {
  RoundedPair(Stream& stream, float first, float second) {
    TestTensor q(kF32, {1, 18});
    TestTensor key(kF32, {1, 18});
    std::fill_n(key.Row(0), 16, 0.0f);
    key.Row(0)[16] = first;
    key.Row(0)[17] = second;
    const TestTensor value = key.DeepCopy();
    TestTensor keys(DType::kInt8, {1, 1, 18, 16});
    TestTensor values(DType::kInt8, {1, 1, 16, 18});
    TestTensor key_scales(kF32, {1, 1, 16});
    TestTensor value_scales(kF32, {1, 1, 16});
    const std::vector<int32_t> positions = {0};
    const std::vector<int64_t> slots = {3};
    ops::RotateAndStore(stream, positions, TensorView(nullptr, kF32, {1, 0}), q, key, value, slots,
                        {keys, values, 16, key_scales, value_scales});
    scale = value_scales.Row(0)[3];
    EXPECT_TRUE(std::memcmp(&scale, key_scales.Row(0) + 3, sizeof(scale)) == 0);
    for (int64_t i = 0; i < 18; ++i) {
      const int8_t element = values.view().Data<int8_t>()[3 * 18 + i];
      EXPECT_EQ(int{keys.view().Data<int8_t>()[i * 16 + 3]}, int{element});
      if (i < 16) EXPECT_EQ(int{element}, 0);
      elements[i % 2] = element;
    }
  }
  float scale;
  int elements[2];
};

TEST(RotateAndStore, "rounds to int8 by the largest magnitude, to nearest even") {
  ForStreams([](Stream& stream) {
    const auto expect = [&](float first, float second, float scale, int first_element, int second_element) {
      const RoundedPair rounded(stream, first, second);
      EXPECT_EQ(rounded.scale, scale);
      EXPECT_EQ(rounded.elements[0], first_element);
      EXPECT_EQ(rounded.elements[1], second_element);
    };
    expect(-127, 63.4f, 1, -127, 63);
    expect(254, -3, 2, 127, -2);  // -1.5
    expect(254, 5, 2, 127, 2);    // 2.5
    const float largest = std::numeric_limits<float>::max();
    expect(largest, -largest, largest / 127, 127, -127);
  });
}

TEST(RotateAndStore, "gives zeros scale zero, and what is not finite scale NaN") {
  ForStreams([](Stream& stream) {
    for (const float tiny : {0.0f, -0.0f, 9e-31f, -1e-40f}) {
      const RoundedPair rounded(stream, tiny, 0);
      EXPECT_EQ(rounded.scale, 0.0f);
      EXPECT_EQ(rounded.elements[0], 0);
    }
    for (const float value : {kInfinity, -kInfinity, kNaN, -kNaN}) {
      const RoundedPair rounded(stream, 1, value);
      EXPECT_TRUE(std::isnan(rounded.scale));
      EXPECT_EQ(rounded.elements[0], 0);
      EXPECT_EQ(rounded.elements[1], 0);
    }
  });
}

TEST(RotateAndStore, "rotates the first part of every query and key head, and stores the rotated keys") {
  Random random(7);
  for (int64_t rotary_dim : {2, 24, 32, 80, 128}) {
    for (int64_t rest : {0, 6}) {
      const int64_t head_dim = rotary_dim + rest;
      TestTensor cos_sin(kF32, {10, rotary_dim});
      cos_sin.Fill(random);
      const TensorView table = cos_sin;
      const NewTokens tokens(kF32, head_dim, 4, 16);
      NewTokens expected(tokens);
      const int size = static_cast<int>(head_dim);
      ops::reference::RotaryEmbedding(expected.positions, cos_sin, 12, size, expected.q);
      ops::reference::RotaryEmbedding(expected.positions, cos_sin, 3, size, expected.k);
      ForStreams([&](Stream& stream) {
        NewTokens actual(tokens);
        ops::RotateAndStore(stream, actual.positions, table, actual.q, actual.k, actual.v, actual.slots,
                            actual.cache());
        EXPECT_NEAR(MaxError(actual.q, expected.q), 0, 4e-6);
        EXPECT_NEAR(MaxError(actual.k, expected.k), 0, 4e-6);
        for (int64_t i = rotary_dim; i < head_dim; ++i) EXPECT_EQ(actual.q.Row(1)[i], tokens.q.Row(1)[i]);
        NewTokens stored(tokens);
        ops::reference::StoreKVCache(actual.k, actual.v, actual.slots, stored.cache());
        EXPECT_TRUE(SameBits(actual.keys, stored.keys));
        EXPECT_TRUE(SameBits(actual.values, stored.values));
      });
    }
  }
}

TEST(RotateAndStore, "refuses a slot outside the cache and a position beyond its table") {
  Stream stream(1, true, CpuIsa::kScalar);
  TestTensor q(kF32, {1, 16});
  TestTensor keys(kF32, {2, 1, 16, 16});
  TestTensor values(kF32, {2, 1, 16, 16});
  TestTensor cos_sin(kF32, {10, 8});
  const TensorView table = cos_sin;
  const ops::KVCacheView cache{keys, values, 16, {}, {}};
  const std::vector<int32_t> position = {9};
  for (int64_t slot : {-1, 32}) {
    const std::vector<int64_t> slots = {slot};
    EXPECT_ERROR(ErrorCode::kInternal, ops::RotateAndStore(stream, position, table, q, q, q, slots, cache));
  }
  const std::vector<int32_t> beyond = {10};
  const std::vector<int64_t> slots = {0};
  EXPECT_ERROR(ErrorCode::kInternal, ops::RotateAndStore(stream, beyond, table, q, q, q, slots, cache));
}

TEST(SamplingOps, "find the largest element, the lowest index among equals") {
  Random random(11);
  for (int64_t size : kAwkwardSizes) {
    for (int trial = 0; trial < 20; ++trial) {
      std::vector<float> row(static_cast<size_t>(size));
      for (float& value : row) value = std::floor(random.Uniform(-9, 9));
      ForStreams([&](Stream& stream) { EXPECT_EQ(ops::ArgMax(stream.isa(), row), ops::reference::ArgMax(row)); });
    }
  }
}

TEST(SamplingOps, "find the first NaN before any number, and index 0 in a row of -infinity") {
  ForStreams([&](Stream& stream) {
    std::vector<float> row(100, -kInfinity);
    EXPECT_EQ(ops::ArgMax(stream.isa(), row), 0);
    row[98] = -1e38f;
    EXPECT_EQ(ops::ArgMax(stream.isa(), row), 98);
    row[3] = kInfinity;
    EXPECT_EQ(ops::ArgMax(stream.isa(), row), 3);
    row[99] = kNaN;
    EXPECT_EQ(ops::ArgMax(stream.isa(), row), 99);
    row[40] = -kNaN;
    EXPECT_EQ(ops::ArgMax(stream.isa(), row), 40);
  });
}

TEST(SamplingOps, "give log-sum-exp of rows of any size and height") {
  Random random(12);
  for (int64_t size : kAwkwardSizes) {
    for (float offset : {0.0f, 1e4f, -1e30f}) {
      std::vector<float> row(static_cast<size_t>(size));
      for (float& value : row) value = random.Uniform(-20, 20) + offset;
      if (size > 1) row[0] = -kInfinity;
      const double expected = ops::reference::LogSumExp(row);
      ForStreams([&](Stream& stream) {
        EXPECT_NEAR(ops::LogSumExp(stream.isa(), row), expected, 1e-6 * (1 + std::abs(expected)));
      });
    }
  }
  ForStreams([&](Stream& stream) {
    EXPECT_EQ(ops::LogSumExp(stream.isa(), std::vector<float>(20, -kInfinity)), -kInfinity);
    EXPECT_EQ(ops::LogSumExp(stream.isa(), std::vector<float>{1, kInfinity}), kInfinity);
    EXPECT_TRUE(std::isnan(ops::LogSumExp(stream.isa(), std::vector<float>{1, kNaN, 2})));
  });
}

TEST(SamplingOps, "exponentiate a row and sum it, with exact zeros for -infinity") {
  Random random(13);
  for (int64_t size : kAwkwardSizes) {
    std::vector<float> row(static_cast<size_t>(size));
    for (float& value : row) value = random.Uniform(-30, 5);
    row[0] = 5;
    if (size > 1) row[static_cast<size_t>(size) - 1] = -kInfinity;
    std::vector<float> expected = row;
    const double expected_sum = ops::reference::ExpAndSum(5, expected);
    ForStreams([&](Stream& stream) {
      std::vector<float> actual = row;
      EXPECT_NEAR(ops::ExpAndSum(stream.isa(), 5, actual), expected_sum, 1e-6 * expected_sum);
      for (size_t i = 0; i < row.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 3e-6 * expected[i]);
    });
  }
}

TEST(Ops, "give the same bits with one thread and three, on rows long enough to be split") {
  Random random(14);
  TestTensor x(kF32, {5, 20011});
  x.Fill(random, -9, 9);
  TestTensor weight(kF32, {20011});
  weight.Fill(random);
  for (CpuIsa isa : test::RunnableIsas()) {
    Stream one(1, true, isa);
    Stream three(3, true, isa);
    const TestTensor a = x.DeepCopy();
    const TestTensor b = x.DeepCopy();
    for (auto [stream, y] : {std::pair<Stream*, const TestTensor*>{&one, &a}, {&three, &b}}) {
      ops::AddBias(*stream, weight, *y);
      ops::SoftCap(*stream, 20, *y);
      ops::RmsNorm(*stream, *y, weight, 1e-5f, *y);
    }
    EXPECT_TRUE(SameBits(a, b));
  }
}

TEST(Ops, "each add their time to that of their stream") {
  Stream stream(1, true, CpuIsa::kScalar);
  Random random(15);
  TestTensor x(kF32, {2, 32});
  TestTensor y(kF32, {2, 32});
  TestTensor weight(kF32, {32});
  TestTensor keys(kF32, {2, 2, 16, 16});
  TestTensor values(kF32, {2, 2, 16, 16});
  for (TestTensor* tensor : {&x, &y, &weight, &keys, &values}) tensor->Fill(random);
  const PackedMatrix square({.dtype = kF32}, 32, 32, {0, 32});
  const PackedMatrix gate_up({.dtype = kF32}, 64, 32, {0, 32});
  const ops::KVCacheView cache{keys, values, 16, {}, {}};
  const std::vector<int32_t> ids = {1, 0};
  const std::vector<int64_t> slots = {16, 17};
  const std::vector<int32_t> starts = {0, 2};
  const std::vector<int32_t> lengths = {2};
  const std::vector<int32_t> blocks = {1};
  const std::span<float> row(x.Row(0), 32);
  const std::vector<std::function<void()>> all = {
      [&] { ops::Embedding(stream, ids, x, 0, 1, y); },
      [&] { ops::Embedding(stream, ids, square, 0, 1, y); },
      [&] { ops::RmsNorm(stream, x, weight, 1e-5f, y); },
      [&] { ops::AddRmsNorm(stream, x, y, weight, 1e-5f, x); },
      [&] { ops::Add(stream, x, y); },
      [&] { ops::AddBias(stream, weight, y); },
      [&] { ops::Matmul(stream, x, square, y); },
      [&] { ops::GatedMatmul(stream, Activation::kSilu, x, gate_up, y); },
      [&] { ops::SoftCap(stream, 30, y); },
      [&] {
        ops::RotateAndStore(stream, ids, TensorView(nullptr, kF32, {2, 0}), x, x, y, slots, cache);
      },
      [&] {
        ops::PagedAttention(stream, x, cache, {starts, lengths, blocks, 1}, {2, 2, 16, 1}, y);
      },
  };
  for (const auto& op : all) {
    const auto before = stream.op_time();
    op();
    EXPECT_TRUE(stream.op_time() > before);
  }
}

TEST(Ops, "refuse shapes and dtypes that do not fit") {
  Stream stream(1, true, CpuIsa::kScalar);
  TestTensor x(kF32, {2, 8});
  TestTensor other(kF32, {2, 9});
  TestTensor half(DType::kFloat16, {2, 8});
  TestTensor weight(kF32, {9});
  EXPECT_ERROR(ErrorCode::kInternal, ops::Add(stream, x, other));
  EXPECT_ERROR(ErrorCode::kInternal, ops::Add(stream, half, x));
  EXPECT_ERROR(ErrorCode::kInternal, ops::AddBias(stream, weight, x));
  EXPECT_ERROR(ErrorCode::kInternal, ops::RmsNorm(stream, x, weight, 1e-5f, x));
  EXPECT_ERROR(ErrorCode::kInternal,
               ops::GatedMatmul(stream, Activation::kSilu, x, PackedMatrix({.dtype = kF32}, 16, 8, {0, 8}), x));
  EXPECT_ERROR(ErrorCode::kInternal, ops::ArgMax(stream.isa(), {}));
  const TensorView overlapping(x.Row(0), kF32, {2, 8}, 4);
  EXPECT_ERROR(ErrorCode::kInternal, ops::SoftCap(stream, 30, overlapping));
}

}  // namespace
}  // namespace heddle
