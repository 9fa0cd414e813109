#include "loader/weight_cache.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "loader_testing.h"
#include "ops/packed_matrix.h"
#include "temp_folder.h"
#include "tensor_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::Random;
using test::SafetensorsBytes;
using test::SameBits;
using test::TempFolder;
using test::TensorHeader;
using test::TestTensor;

const std::atomic<bool> kNotCancelled{false};

Tensor Filled(int64_t count, float value) {
  Tensor tensor(DType::kFloat32, {count});
  std::fill_n(tensor.view().Data<float>(), count, value);
  return tensor;
}

float First(const Tensor& tensor) { return tensor.view().Data<float>()[0]; }

// Saves a = 1 1 1 1 .. and b = 2 2 2 2 ..
std::string SaveTwo(const TempFolder& folder, const std::string& identity = "model") {
  const std::string path = folder.path() + "/weights";
  WeightCache cache(path, identity);
  for (const auto& [name, value] : {std::pair("a", 1.0f), std::pair("b", 2.0f)}) {
    Tensor tensor = Filled(32, value);
    cache.Restore(name, tensor);
  }
  EXPECT_TRUE(cache.Save(kNotCancelled));
  return path;
}

bool Restores(const std::string& path, const std::string& identity, const std::string& name, int64_t count) {
  Tensor tensor(DType::kFloat32, {count});
  return WeightCache(path, identity).Restore(name, tensor);
}

std::string Contents(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

size_t NumFiles(const TempFolder& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder.path()), {}));
}

TEST(WeightCache, "asks for everything when there is no file, and restores everything that was saved") {
  const TempFolder folder;
  const std::string path = folder.path() + "/weights";
  WeightCache first(path, "model");
  Tensor a(DType::kFloat32, {32});
  EXPECT_TRUE(!first.Restore("a", a) && !first.complete());
  a.view().Data<float>()[0] = 7;  // after it was asked for
  EXPECT_TRUE(first.Save(kNotCancelled));

  WeightCache second(path, "model");
  Tensor b(DType::kFloat32, {32});
  EXPECT_TRUE(second.Restore("a", b) && second.complete());
  EXPECT_EQ(First(b), 7.0f);
}

TEST(WeightCache, "restores only under the same identity, name and size") {
  const TempFolder folder;
  const std::string path = SaveTwo(folder);
  EXPECT_TRUE(Restores(path, "model", "b", 32));
  EXPECT_TRUE(!Restores(path, "other", "b", 32));
  EXPECT_TRUE(!Restores(path, "model", "c", 32));
  EXPECT_TRUE(!Restores(path, "model", "b", 31));
}

TEST(WeightCache, "takes a file that is broken anywhere for none, and replaces it") {
  const TempFolder folder;
  const std::string path = SaveTwo(folder);
  const std::string whole = Contents(path);
  std::string renamed = whole;
  renamed.replace(renamed.find("\"a\""), 3, "\"x\"");
  const std::string odd =
      SafetensorsBytes(R"({"__metadata__":{"heddle":"model"},)" + TensorHeader("b", "U8", "[128]", "[0,128]") + "}",
                       whole.substr(0, 128));
  for (const std::string& broken :
       {std::string(), std::string("x"), std::string(10'000, '\xff'), std::string(10'000, '\0'), whole.substr(0, 9),
        whole.substr(0, 4096), whole.substr(0, whole.size() - 1), whole + "x", renamed, odd}) {
    folder.Write("weights", broken);
    WeightCache cache(path, "model");
    for (const char* name : {"a", "b"}) {
      Tensor tensor = Filled(32, 5);
      cache.Restore(name, tensor);
    }
    EXPECT_TRUE(!cache.complete() && cache.Save(kNotCancelled));
    EXPECT_TRUE(Restores(path, "model", "a", 32) && Restores(path, "model", "b", 32));
  }
}

TEST(WeightCache, "saves what it restored along with what was missing") {
  const TempFolder folder;
  const std::string path = SaveTwo(folder);
  {
    WeightCache cache(path, "model");
    Tensor b(DType::kFloat32, {32});
    Tensor c = Filled(32, 3);
    EXPECT_TRUE(cache.Restore("b", b) && !cache.Restore("c", c));
    EXPECT_TRUE(cache.Save(kNotCancelled));
  }
  WeightCache cache(path, "model");
  Tensor b(DType::kFloat32, {32});
  Tensor c(DType::kFloat32, {32});
  EXPECT_TRUE(cache.Restore("b", b) && cache.Restore("c", c));
  EXPECT_EQ(First(b), 2.0f);
  EXPECT_EQ(First(c), 3.0f);
}

TEST(WeightCache, "keeps what it restored when the file is replaced or deleted") {
  const TempFolder folder;
  const std::string path = SaveTwo(folder);
  Tensor a(DType::kFloat32, {32});
  EXPECT_TRUE(WeightCache(path, "model").Restore("a", a));
  SaveTwo(folder, "another");
  EXPECT_EQ(First(a), 1.0f);
  std::filesystem::remove(path);
  EXPECT_EQ(First(a), 1.0f);
}

TEST(WeightCache, "aligns tensors to 64 bytes although one of them has an odd size") {
  const TempFolder folder;
  const std::string path = folder.path() + "/weights";
  for (const bool expected : {false, true}) {
    WeightCache cache(path, "model");
    Tensor odd(DType::kFloat32, {5});
    Tensor even(DType::kFloat32, {32});
    EXPECT_EQ(cache.Restore("odd", odd), expected);
    EXPECT_EQ(cache.Restore("even", even), expected);
    for (const Tensor& tensor : {odd, even}) EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.view().data) % 64, 0u);
    if (!expected) EXPECT_TRUE(cache.Save(kNotCancelled));
  }
}

TEST(WeightCache, "makes files that only their owner may read, and no others") {
  const TempFolder folder;
  const std::string path = SaveTwo(folder);
  struct stat status = {};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0600u);
  EXPECT_EQ(NumFiles(folder), 1u);
}

TEST(WeightCache, "leaves nothing behind when saving is cancelled or fails") {
  const TempFolder folder;
  const std::atomic<bool> cancelled{true};
  Tensor a = Filled(32, 1);
  WeightCache late(folder.path() + "/weights", "model");
  late.Restore("a", a);
  EXPECT_TRUE(!late.Save(cancelled));
  WeightCache lost(folder.path() + "/no/such/folder/weights", "model");
  lost.Restore("a", a);
  EXPECT_TRUE(!lost.Save(kNotCancelled));
  std::filesystem::create_directory(folder.path() + "/folder");
  WeightCache blocked(folder.path() + "/folder", "model");
  blocked.Restore("a", a);
  EXPECT_TRUE(!blocked.Save(kNotCancelled));
  EXPECT_EQ(NumFiles(folder), 1u);
}

TEST(WeightCache, "gives packed matrices back with every bit, and the zeros after the end") {
  const TempFolder folder;
  Random random(5);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    const TestTensor rows = TestTensor(dtype, {37, 45}).Fill(random);
    PackedMatrix packed({.dtype = dtype}, 37, 45, {0, 21, 45});
    packed.PackRows(0, rows);
    const std::string path = folder.path() + "/" + DTypeName(dtype);
    WeightCache saving(path, "model");
    EXPECT_TRUE(!saving.Restore(packed.Form(), packed.memory()));
    EXPECT_TRUE(saving.Save(kNotCancelled));

    PackedMatrix restored({.dtype = dtype}, 37, 45, {0, 21, 45});
    EXPECT_TRUE(WeightCache(path, "model").Restore(restored.Form(), restored.memory()));
    EXPECT_TRUE(SameBits(restored.memory(), packed.memory()));
    EXPECT_EQ(restored.Panel(0), static_cast<const void*>(restored.memory().view().data));
  }
}

TEST(PackedMatrix, "tells every form from every other") {
  const auto form = [](DType dtype, int64_t n, int64_t k, std::vector<int64_t> bounds) {
    return PackedMatrix({.dtype = dtype}, n, k, std::move(bounds)).Form();
  };
  EXPECT_EQ(form(DType::kBFloat16, 37, 45, {0, 21, 45}), "bfloat16 [37, 45] 0 21 45");
  EXPECT_TRUE(form(DType::kBFloat16, 37, 45, {0, 45}) != form(DType::kFloat16, 37, 45, {0, 45}));
  EXPECT_TRUE(form(DType::kBFloat16, 37, 45, {0, 21, 45}) != form(DType::kBFloat16, 37, 45, {0, 20, 45}));
}

// Files outlive the program that wrote them. Who changes this raises kPackedLayoutVersion.
TEST(PackedMatrix, "has the layout that its version stands for") {
  EXPECT_EQ(kPackedLayoutVersion, 3);
  Random random(6);
  const TestTensor rows = TestTensor(DType::kBFloat16, {20, 7}).Fill(random);
  PackedMatrix pairs({.dtype = DType::kBFloat16}, 20, 7, {0, 3, 7});
  PackedMatrix plain({.dtype = DType::kFloat32}, 20, 7, {0, 3, 7});
  pairs.PackRows(0, rows);
  plain.PackRows(0, rows);
  EXPECT_EQ(pairs.memory().view().dim(0), 2 * 8 * 16 * 2 + 2048);
  EXPECT_EQ(plain.memory().view().dim(0), 2 * 8 * 16 * 4 + 2048);
  for (int64_t row = 0; row < 20; ++row) {
    for (int64_t k = 0; k < 7; ++k) {
      const int64_t packed_k = k < 3 ? k : k + 1;         // the second slice begins at an even position
      const int64_t at = (row / 16 * 8 + packed_k) * 16;  // of the panel's row of 16
      const uint16_t bits = rows.view().Row<uint16_t>(row)[k];
      const auto* pair_lanes = static_cast<const uint16_t*>(pairs.Panel(0)) + at - packed_k % 2 * 16;
      EXPECT_EQ(pair_lanes[row % 16 * 2 + packed_k % 2], bits);
      EXPECT_EQ(static_cast<const float*>(plain.Panel(0))[at + row % 16], BFloat16ToFloat(bits));
    }
  }

  // Int8: quads of K, each slice from a whole one on; then scales; then sums over the slices.
  const Tensor elements(DType::kInt8, {20, 7});
  for (int64_t i = 0; i < 20 * 7; ++i) elements.view().Data<int8_t>()[i] = static_cast<int8_t>(i - 70);
  std::vector<float> scales(20);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<float>(i + 1);
  PackedMatrix int8({.dtype = DType::kInt8}, 20, 7, {0, 3, 7});
  int8.PackRows(0, elements, scales.data());
  EXPECT_EQ(int8.memory().view().dim(0), 2 * 8 * 16 + 2 * 16 * 4 + 2 * 2 * 16 * 4 + 2048);
  for (int64_t row = 0; row < 20; ++row) {
    int32_t sums[2] = {0, 0};
    for (int64_t k = 0; k < 7; ++k) {
      const int64_t packed_k = k < 3 ? k : k + 1;
      const int8_t element = elements.view().Row<int8_t>(row)[k];
      EXPECT_EQ(static_cast<const int8_t*>(int8.Panel(row / 16))[(packed_k / 4 * 16 + row % 16) * 4 + packed_k % 4],
                element);
      sums[k < 3 ? 0 : 1] += element;
    }
    EXPECT_EQ(int8.scales()[row], scales[static_cast<size_t>(row)]);
    for (int64_t slice = 0; slice < 2; ++slice) {
      EXPECT_EQ(int8.SliceSums(row / 16)[slice * 16 + row % 16], sums[slice]);
    }
  }

  // 2:4: blocks of eight quads, first which values of each output are kept, then those.
  const TestTensor kept = TestTensor(DType::kBFloat16, {16, 40}).Fill(random, 0.5f, 1);
  for (int64_t row = 0; row < 16; ++row) {
    for (int64_t k = 0; k < 40; ++k) {
      if (k % 4 == row % 4 || k % 4 == (row + 2) % 4) kept.view().Row<uint16_t>(row)[k] = 0;
    }
  }
  PackedMatrix sparse({.dtype = DType::kBFloat16, .sparse = true}, 16, 40, {0, 40});
  sparse.PackRows(0, kept);
  EXPECT_EQ(sparse.memory().view().dim(0), 2 * (64 + 8 * 32 * 2) + 2048);
  for (int64_t quad = 0; quad < 10; ++quad) {
    const char* block = static_cast<const char*>(sparse.Panel(0)) + quad / 8 * (64 + 8 * 32 * 2);
    for (int64_t row = 0; row < 16; ++row) {
      const unsigned choice = static_cast<unsigned char>(block[quad % 8 * 8 + row / 2]) >> (4 * (row % 2));
      const auto* value = reinterpret_cast<const uint16_t*>(block + 64 + quad % 8 * 64) + 2 * row;
      for (int64_t i = 0; i < 4; ++i) {
        const uint16_t element = kept.view().Row<uint16_t>(row)[quad * 4 + i];
        EXPECT_EQ(((choice ^ 3) >> i & 1) != 0, element != 0);
        if (element != 0) EXPECT_EQ(*value++, element);
      }
    }
  }
}

}  // namespace
}  // namespace heddle
