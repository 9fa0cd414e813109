#include <algorithm>
#include <cmath>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;

// The part [first_id, first_id + table_rows) of a table.
void CheckEmbedding(TestStream& stream, HeddleCudaDType dtype, const std::vector<int32_t>& ids, int64_t table_rows,
                    int64_t first_id, int64_t size, int64_t gap) {
  constexpr float kScale = 1.7f;
  const int64_t table_stride = size + gap;
  const int64_t stride = size + 2 * gap;
  const auto rows = static_cast<int64_t>(ids.size());
  const std::vector<float> values =
      Rounded(dtype, RandomFloats(static_cast<size_t>(table_rows * table_stride), static_cast<uint64_t>(size)));
  const DeviceArray table = DeviceArray::From(stream, dtype, values);
  const DeviceArray device_ids = DeviceArray::Ints(stream, ids);
  const DeviceArray y = DeviceArray::Poisoned(stream, kF32, static_cast<size_t>(rows * stride));
  const HeddleCudaEmbedding op = {.ids = device_ids.As<int32_t>(),
                                  .table = Matrix(table, dtype, table_rows, size, table_stride),
                                  .table_scales = nullptr,
                                  .first_id = first_id,
                                  .scale = kScale,
                                  .y = Matrix(y, kF32, rows, size, stride)};
  EXPECT_OK(Api().embedding(stream.get(), &op));
  std::vector<float> expected;
  for (int32_t id : ids) {
    const int64_t row = id - first_id;
    for (int64_t i = 0; i < size; ++i) {
      const bool is_there = row >= 0 && row < table_rows;
      expected.push_back(is_there ? values[static_cast<size_t>(row * table_stride + i)] * kScale : 0.0f);
    }
  }
  const std::vector<float> result = y.ToHost();
  EXPECT_TRUE(RowsOf(result, rows, size, stride) == expected);
  EXPECT_TRUE(GapsAreNaN(result, rows, size, stride));
}

TEST(CudaEmbedding, "looks rows up in every dtype, scales them, and gives zeros for ids of other shards") {
  TestStream stream;
  const std::vector<int32_t> ids = {5, 7, 4, 11, 12, 1'000'000, 0, 9, -1, 2'147'483'647};
  for (HeddleCudaDType dtype : kAllDTypes) {
    for (int64_t size : {1, 7, 8, 64, 111, 896, 2304, 4096}) {
      CheckEmbedding(stream, dtype, ids, 7, 5, size, 0);
      CheckEmbedding(stream, dtype, ids, 7, 5, size, 8);
      CheckEmbedding(stream, dtype, ids, 7, 5, size, 3);
      CheckEmbedding(stream, dtype, {5}, 7, 5, size, 0);
    }
  }
}

TEST(CudaEmbedding, "multiplies rows of an int8 table by their scales") {
  TestStream stream;
  constexpr int64_t kTableRows = 5;
  constexpr float kScale = 1.7f;
  for (int64_t size : {1, 8, 111, 2304}) {
    const int64_t stride = (size + 15) / 16 * 16;
    std::vector<int32_t> words(static_cast<size_t>(kTableRows * stride / 4));
    auto* const elements = reinterpret_cast<int8_t*>(words.data());
    for (int64_t i = 0; i < kTableRows * stride; ++i) elements[i] = static_cast<int8_t>(i * 37 % 256 - 128);
    const DeviceArray table = DeviceArray::Ints(stream, words);
    const std::vector<float> scales = {0.5f, 0.01f, 3.0f, 1e-6f, 7.25f};
    const DeviceArray device_scales = DeviceArray::From(stream, kF32, scales);
    const std::vector<int32_t> ids = {4, 0, 5, 2, 3, 1};
    const DeviceArray device_ids = DeviceArray::Ints(stream, ids);
    const auto rows = static_cast<int64_t>(ids.size());
    const DeviceArray y = DeviceArray::Poisoned(stream, kF32, static_cast<size_t>(rows * size));
    HeddleCudaEmbedding op = {.ids = device_ids.As<int32_t>(),
                              .table = Matrix(table, kHeddleCudaInt8, kTableRows, size, stride),
                              .table_scales = device_scales.As<float>(),
                              .first_id = 0,
                              .scale = kScale,
                              .y = Matrix(y, kF32, rows, size)};
    EXPECT_OK(Api().embedding(stream.get(), &op));
    std::vector<float> expected;
    for (int32_t id : ids) {
      for (int64_t i = 0; i < size; ++i) {
        const bool is_there = id < kTableRows;
        expected.push_back(is_there ? static_cast<float>(elements[id * stride + i]) *
                                          (scales[static_cast<size_t>(id)] * kScale)
                                    : 0.0f);
      }
    }
    EXPECT_TRUE(y.ToHost() == expected);
    op.table_scales = nullptr;
    EXPECT_STATUS(Api().embedding(stream.get(), &op), kHeddleCudaInvalid);
  }
}

TEST(CudaEmbedding, "looks up more rows than a grid is high") {
  TestStream stream;
  std::vector<int32_t> ids(70'001);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 31 % 1009);
  CheckEmbedding(stream, kHeddleCudaBFloat16, ids, 1000, 0, 8, 0);
  CheckEmbedding(stream, kHeddleCudaBFloat16, ids, 1000, 0, 3, 0);
}

TEST(CudaEmbedding, "turns negative zero into zero, so that shards add up exactly") {
  TestStream stream;
  for (int64_t size : {3, 8}) {
    const DeviceArray table = DeviceArray::From(stream, kF32, std::vector<float>(static_cast<size_t>(size), -0.0f));
    const DeviceArray ids = DeviceArray::Ints(stream, {0});
    const DeviceArray y = DeviceArray::Poisoned(stream, kF32, static_cast<size_t>(size));
    const HeddleCudaEmbedding op = {.ids = ids.As<int32_t>(),
                                    .table = Matrix(table, kF32, 1, size),
                                    .table_scales = nullptr,
                                    .first_id = 0,
                                    .scale = 1,
                                    .y = Matrix(y, kF32, 1, size)};
    EXPECT_OK(Api().embedding(stream.get(), &op));
    const std::vector<float> result = y.ToHost();
    EXPECT_TRUE(std::all_of(result.begin(), result.end(), [](float x) { return x == 0 && !std::signbit(x); }));
  }
}

TEST(CudaEmbedding, "does nothing for no rows, and refuses what does not fit together") {
  TestStream stream;
  const DeviceArray memory = DeviceArray::Poisoned(stream, kF32, 64);
  const HeddleCudaEmbedding good = {.ids = memory.As<int32_t>(),
                                    .table = Matrix(memory, kF32, 2, 8),
                                    .table_scales = nullptr,
                                    .first_id = 0,
                                    .scale = 1,
                                    .y = Matrix(memory, kF32, 2, 8)};
  HeddleCudaEmbedding op = good;
  op.y.num_rows = 0;
  EXPECT_OK(Api().embedding(stream.get(), &op));
  const auto refused = [&](auto change) {
    op = good;
    change();
    EXPECT_STATUS(Api().embedding(stream.get(), &op), kHeddleCudaInvalid);
  };
  refused([&] { op.y.dtype = kHeddleCudaBFloat16; });
  refused([&] { op.y.size = 7; });
  refused([&] { op.table.stride = 7; });
  refused([&] { op.ids = nullptr; });
}

}  // namespace
}  // namespace heddle::test
