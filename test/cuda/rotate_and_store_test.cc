#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "cached_rows.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kInt8 = kHeddleCudaInt8;

struct Shape {
  int64_t num_tokens;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int rotary_dim;
  int block_size;
  int gap;  // between q, k and v, which are parts of the same rows
};

constexpr int32_t kMaxPositions = 50;

// 16 slots of one head, keys and values in the same place.
HeddleCudaKVCache OneBlock(const DeviceArray& cache, int32_t head_dim) {
  return {.keys = cache.data(),
          .values = cache.data(),
          .dtype = kHeddleCudaFloat32,
          .num_blocks = 1,
          .num_kv_heads = 1,
          .block_size = 16,
          .head_dim = head_dim};
}

// Everything that the op reads and writes, as floats.
struct State {
  std::vector<float> qkv;  // [num_tokens, stride]
  std::vector<float> keys, values;
};

struct Step {
  explicit Step(const Shape& shape)
      : q_size(shape.num_heads * shape.head_dim),
        kv_size(shape.num_kv_heads * shape.head_dim),
        stride(q_size + 2 * kv_size + 3 * shape.gap),
        k_begin(q_size + shape.gap),
        v_begin(k_begin + kv_size + shape.gap),
        num_blocks(shape.num_tokens / shape.block_size + 2),
        cache_size(num_blocks * kv_size * shape.block_size) {
    std::mt19937_64 random(static_cast<uint64_t>(shape.head_dim));
    std::vector<int64_t> all(static_cast<size_t>(num_blocks * shape.block_size));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), random);
    slots.assign(all.begin(), all.begin() + shape.num_tokens);
    for (int64_t i = 0; i < shape.num_tokens; ++i) {
      positions.push_back(static_cast<int32_t>(random() % kMaxPositions));
      // Padding, whose position is nonsense.
      if (i % 5 == 3) slots[static_cast<size_t>(i)] = -1, positions.back() = -7;
    }
    cos_sin = RandomFloats(static_cast<size_t>(kMaxPositions * shape.rotary_dim), 8);
  }

  int64_t q_size, kv_size, stride, k_begin, v_begin, num_blocks, cache_size;
  std::vector<int64_t> slots;
  std::vector<int32_t> positions;
  std::vector<float> cos_sin;
};

void RotateHead(const Shape& shape, const float* cos_sin, float* head) {
  const int half = shape.rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const double first = head[i];
    const double second = head[i + half];
    head[i] = static_cast<float>(first * cos_sin[i] - second * cos_sin[half + i]);
    head[i + half] = static_cast<float>(second * cos_sin[i] + first * cos_sin[half + i]);
  }
}

void RunReference(const Shape& shape, const Step& step, State& state) {
  for (int64_t token = 0; token < shape.num_tokens; ++token) {
    const int64_t slot = step.slots[static_cast<size_t>(token)];
    if (slot < 0) continue;
    float* const row = state.qkv.data() + token * step.stride;
    const float* const cos_sin =
        step.cos_sin.data() + step.positions[static_cast<size_t>(token)] * int64_t{shape.rotary_dim};
    for (int head = 0; head < shape.num_heads; ++head) RotateHead(shape, cos_sin, row + head * shape.head_dim);
    for (int head = 0; head < shape.num_kv_heads; ++head) {
      float* const key = row + step.k_begin + head * shape.head_dim;
      const float* const value = row + step.v_begin + head * shape.head_dim;
      RotateHead(shape, cos_sin, key);
      const int64_t block = slot / shape.block_size * shape.num_kv_heads + head;
      const int64_t first = (block * shape.block_size + slot % shape.block_size) * shape.head_dim;
      std::copy_n(key, shape.head_dim, state.keys.begin() + first);
      std::copy_n(value, shape.head_dim, state.values.begin() + first);
    }
  }
}

// Elements that are NaN in one are so in both; the others agree.
void ExpectClose(const std::vector<float>& actual, const std::vector<float>& expected, HeddleCudaDType dtype) {
  std::vector<float> written;
  std::vector<double> wanted;
  int64_t misplaced = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(expected[i]) != std::isnan(actual[i])) ++misplaced;
    if (std::isnan(expected[i])) continue;
    written.push_back(actual[i]);
    wanted.push_back(expected[i]);
  }
  EXPECT_EQ(misplaced, 0);
  EXPECT_NEAR(RelativeError(written, wanted), 0, Tolerance(dtype));
}

// A cache that nothing was written to, with a size that is in elements.
DeviceArray PoisonedCache(TestStream& stream, HeddleCudaDType dtype, const Shape& shape, size_t size) {
  if (dtype != kInt8) return DeviceArray::Poisoned(stream, dtype, size);
  const size_t num_rows = size / static_cast<size_t>(shape.head_dim);
  return DeviceArray::Bytes(stream, std::vector<uint8_t>(size + num_rows * sizeof(float), 0xff));
}

// Scales agree, and integers to one, where the magnitude that both are of was rounded otherwise; of rows that were not
// written, to the bit.
void ExpectInt8Rows(const DeviceArray& cache, const std::vector<float>& expected, int head_dim) {
  const Int8Rows actual = FromInt8Cache(cache.ToHostBytes(), head_dim);
  const Int8Rows wanted = ToInt8(expected, head_dim);
  int64_t num_wrong = 0;
  int64_t num_beside = 0;
  for (size_t i = 0; i < wanted.integers.size(); ++i) {
    const size_t row = i / static_cast<size_t>(head_dim);
    const bool is_written = !std::isnan(wanted.scales[row]);
    const int difference = std::abs(actual.integers[i] - (is_written ? wanted.integers[i] : -1));
    num_wrong += difference > (is_written ? 1 : 0) ? 1 : 0;
    num_beside += difference;
  }
  EXPECT_EQ(num_wrong, 0);
  EXPECT_TRUE(num_beside <= static_cast<int64_t>(wanted.integers.size()) / 1000);
  ExpectClose(actual.scales, wanted.scales, kHeddleCudaFloat32);
}

void ExpectCache(const DeviceArray& cache, const std::vector<float>& expected, HeddleCudaDType dtype, int head_dim) {
  if (dtype == kInt8) return ExpectInt8Rows(cache, expected, head_dim);
  ExpectClose(cache.ToHost(), expected, dtype);
}

void CheckRotateAndStore(TestStream& stream, HeddleCudaDType dtype, HeddleCudaDType cache_dtype, const Shape& shape) {
  const Step step(shape);
  const auto cache_size = static_cast<size_t>(step.cache_size);
  State state = {Rounded(dtype, RandomFloats(static_cast<size_t>(shape.num_tokens * step.stride), 9)),
                 std::vector<float>(cache_size, NAN), std::vector<float>(cache_size, NAN)};
  const DeviceArray qkv = DeviceArray::From(stream, dtype, state.qkv);
  const DeviceArray keys = PoisonedCache(stream, cache_dtype, shape, cache_size);
  const DeviceArray values = PoisonedCache(stream, cache_dtype, shape, cache_size);
  const DeviceArray positions = DeviceArray::Ints(stream, step.positions);
  const DeviceArray slots = DeviceArray::Longs(stream, step.slots);
  const DeviceArray cos_sin = DeviceArray::From(stream, kHeddleCudaFloat32, step.cos_sin);
  const auto part = [&](int64_t begin, int64_t size) {
    HeddleCudaMatrix matrix = Matrix(qkv, dtype, shape.num_tokens, size, step.stride);
    matrix.data = qkv.As<char>() + begin * (dtype == kHeddleCudaFloat32 ? 4 : 2);
    return matrix;
  };
  const HeddleCudaRotateAndStore op = {.positions = positions.As<int32_t>(),
                                       .cos_sin = cos_sin.As<float>(),
                                       .max_positions = kMaxPositions,
                                       .rotary_dim = shape.rotary_dim,
                                       .q = part(0, step.q_size),
                                       .k = part(step.k_begin, step.kv_size),
                                       .v = part(step.v_begin, step.kv_size),
                                       .slot_mapping = slots.As<int64_t>(),
                                       .cache = {.keys = keys.data(),
                                                 .values = values.data(),
                                                 .dtype = cache_dtype,
                                                 .num_blocks = step.num_blocks,
                                                 .num_kv_heads = shape.num_kv_heads,
                                                 .block_size = shape.block_size,
                                                 .head_dim = shape.head_dim}};
  EXPECT_OK(Api().rotate_and_store(stream.get(), &op));

  const std::vector<float> before = state.qkv;
  RunReference(shape, step, state);
  const std::vector<float> after = qkv.ToHost();
  ExpectClose(after, state.qkv, dtype);
  // What is not rotated stays bit for bit.
  int64_t changed = 0;
  for (size_t i = 0; i < after.size(); ++i) {
    if (state.qkv[i] == before[i] && after[i] != before[i]) ++changed;
  }
  EXPECT_EQ(changed, 0);
  ExpectCache(keys, state.keys, cache_dtype, shape.head_dim);
  ExpectCache(values, state.values, cache_dtype, shape.head_dim);
}

TEST(CudaRotateAndStore, "rotates whole heads and stores them, for every pair of types") {
  TestStream stream;
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (HeddleCudaDType cache_dtype : kAllCacheDTypes) {
      CheckRotateAndStore(stream, dtype, cache_dtype, {1, 32, 8, 128, 128, 16, 0});
      CheckRotateAndStore(stream, dtype, cache_dtype, {67, 4, 2, 64, 64, 32, 8});
      CheckRotateAndStore(stream, dtype, cache_dtype, {9, 3, 3, 30, 30, 64, 1});
    }
  }
}

TEST(CudaRotateAndStore, "rotates parts of heads, of any even size, and none") {
  TestStream stream;
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (HeddleCudaDType cache_dtype : {dtype, kInt8}) {
      for (int block_size : {16, 32, 64, 128}) {
        CheckRotateAndStore(stream, dtype, cache_dtype, {23, 4, 1, 80, 32, block_size, 8});
        CheckRotateAndStore(stream, dtype, cache_dtype, {23, 2, 2, 256, 64, block_size, 0});
        CheckRotateAndStore(stream, dtype, cache_dtype, {23, 2, 1, 80, 20, block_size, 0});
        CheckRotateAndStore(stream, dtype, cache_dtype, {23, 2, 1, 96, 72, block_size, 5});
      }
      CheckRotateAndStore(stream, dtype, cache_dtype, {5, 1, 1, 2, 2, 16, 0});
      CheckRotateAndStore(stream, dtype, cache_dtype, {5, 2, 1, 512, 512, 16, 0});
      CheckRotateAndStore(stream, dtype, cache_dtype, {5, 2, 1, 64, 0, 16, 0});
      CheckRotateAndStore(stream, dtype, cache_dtype, {5, 2, 1, 6, 2, 16, 0});
    }
  }
}

TEST(CudaRotateAndStore, "takes many tokens") {
  TestStream stream;
  for (HeddleCudaDType cache_dtype : {kHeddleCudaBFloat16, kInt8}) {
    CheckRotateAndStore(stream, kHeddleCudaBFloat16, cache_dtype, {4099, 8, 2, 128, 128, 16, 0});
    CheckRotateAndStore(stream, kHeddleCudaBFloat16, cache_dtype, {70'001, 1, 1, 16, 16, 128, 0});
  }
}

TEST(CudaRotateAndStore,
     "stores in int8 zeros of scale zero for next to nothing, and of scale NaN for what is no number") {
  TestStream stream;
  constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
  constexpr int kSize = 4;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> rows = {0, 0, 0, 0, 1e-31f, -1e-31f,    0,       0,      1, NAN,
                                   2, 3, 1, 2, 3,      -kInfinity, -2e-30f, 5e-31f, 0, 0};
  const DeviceArray x = DeviceArray::From(stream, kF32, rows);
  const DeviceArray cache = DeviceArray::Bytes(stream, std::vector<uint8_t>(16 * (kSize + sizeof(float)), 0xff));
  const DeviceArray slots = DeviceArray::Longs(stream, {0, 1, 2, 3, 15});
  HeddleCudaKVCache block = OneBlock(cache, kSize);
  block.dtype = kInt8;
  const HeddleCudaMatrix matrix = Matrix(x, kF32, 5, kSize);
  const HeddleCudaRotateAndStore op = {.positions = nullptr,
                                       .cos_sin = nullptr,
                                       .max_positions = 0,
                                       .rotary_dim = 0,
                                       .q = matrix,
                                       .k = matrix,
                                       .v = matrix,
                                       .slot_mapping = slots.As<int64_t>(),
                                       .cache = block};
  EXPECT_OK(Api().rotate_and_store(stream.get(), &op));
  const Int8Rows stored = FromInt8Cache(cache.ToHostBytes(), kSize);
  EXPECT_TRUE(
      std::all_of(stored.integers.begin(), stored.integers.begin() + 16, [](int8_t each) { return each == 0; }));
  EXPECT_EQ(stored.scales[0], 0);
  EXPECT_EQ(stored.scales[1], 0);
  EXPECT_TRUE(std::isnan(stored.scales[2]) && std::isnan(stored.scales[3]));
  EXPECT_EQ(stored.scales[15], 2e-30f / 127);
  EXPECT_EQ(stored.integers[60], -127);
  EXPECT_EQ(stored.integers[61], 32);
}

TEST(CudaRotateAndStore, "reads no angles beyond the table: the last position's serve there") {
  TestStream stream;
  constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
  constexpr int kSize = 2;
  // Position 0 turns nothing, position 1 by a right angle; what would be position 2 and -1 is poison.
  const DeviceArray table = DeviceArray::From(stream, kF32, {NAN, NAN, 1, 0, 0, 1, NAN, NAN});
  const DeviceArray x = DeviceArray::From(stream, kF32, {3, 4, 3, 4, 3, 4, 3, 4});
  const DeviceArray cache = DeviceArray::Poisoned(stream, kF32, 16 * kSize);
  const DeviceArray positions = DeviceArray::Ints(stream, {0, 1, 2, -1});
  const DeviceArray slots = DeviceArray::Longs(stream, {0, 1, 2, 3});
  const DeviceArray k = DeviceArray::From(stream, kF32, std::vector<float>(8, 1));
  const HeddleCudaRotateAndStore op = {.positions = positions.As<int32_t>(),
                                       .cos_sin = table.As<float>() + kSize,
                                       .max_positions = 2,
                                       .rotary_dim = kSize,
                                       .q = Matrix(x, kF32, 4, kSize),
                                       .k = Matrix(k, kF32, 4, kSize),
                                       .v = Matrix(k, kF32, 4, kSize),
                                       .slot_mapping = slots.As<int64_t>(),
                                       .cache = OneBlock(cache, kSize)};
  EXPECT_OK(Api().rotate_and_store(stream.get(), &op));
  EXPECT_TRUE((x.ToHost() == std::vector<float>{3, 4, -4, 3, -4, 3, -4, 3}));
}

TEST(CudaRotateAndStore, "writes nothing for a slot beyond the cache") {
  TestStream stream;
  constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
  const std::vector<float> ones(16, 1);
  const DeviceArray x = DeviceArray::From(stream, kF32, ones);
  const DeviceArray cache = DeviceArray::Poisoned(stream, kF32, 2 * 16 * 16);
  const DeviceArray positions = DeviceArray::Ints(stream, {0});
  const DeviceArray cos_sin = DeviceArray::From(stream, kF32, std::vector<float>(16, 0.5f));
  const DeviceArray slots = DeviceArray::Longs(stream, {16});
  const HeddleCudaMatrix matrix = Matrix(x, kF32, 1, 16);
  const HeddleCudaRotateAndStore op = {.positions = positions.As<int32_t>(),
                                       .cos_sin = cos_sin.As<float>(),
                                       .max_positions = 1,
                                       .rotary_dim = 16,
                                       .q = matrix,
                                       .k = matrix,
                                       .v = matrix,
                                       .slot_mapping = slots.As<int64_t>(),
                                       .cache = OneBlock(cache, 16)};
  EXPECT_OK(Api().rotate_and_store(stream.get(), &op));
  const std::vector<float> after = cache.ToHost();
  EXPECT_TRUE(std::all_of(after.begin(), after.end(), [](float value) { return std::isnan(value); }));
  EXPECT_TRUE(x.ToHost() == ones);

  const auto refused = [&](auto change) {
    HeddleCudaRotateAndStore bad = op;
    change(bad);
    EXPECT_STATUS(Api().rotate_and_store(stream.get(), &bad), kHeddleCudaInvalid);
  };
  refused([](auto& bad) { bad.rotary_dim = 18; });
  refused([](auto& bad) { bad.rotary_dim = 3; });
  refused([](auto& bad) { bad.cache.block_size = 17; });
  refused([](auto& bad) { bad.cache.block_size = 8; });
  refused([](auto& bad) { bad.cache.head_dim = 514; });
  refused([](auto& bad) { bad.cache.head_dim = 0; });
  refused([](auto& bad) { bad.cache.num_kv_heads = 2; });
  refused([](auto& bad) { bad.cache.keys = nullptr; });
  refused([](auto& bad) { bad.v.dtype = kHeddleCudaFloat16; });
  refused([](auto& bad) { bad.k.num_rows = 2; });
  refused([](auto& bad) { bad.slot_mapping = nullptr; });
  refused([](auto& bad) { bad.cos_sin = nullptr; });
  refused([](auto& bad) { bad.max_positions = 0; });
}

}  // namespace
}  // namespace heddle::test
