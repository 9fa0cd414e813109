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
    PackedMatrix packed(dtype, 37, 45, {0, 21, 45});
    packed.PackRows(0, rows);
    const std::string path = folder.path() + "/" + DTypeName(dtype);
    WeightCache saving(path, "model");
    EXPECT_TRUE(!saving.Restore(packed.Form(), packed.memory()));
    EXPECT_TRUE(saving.Save(kNotCancelled));

    PackedMatrix restored(dtype, 37, 45, {0, 21, 45});
    EXPECT_TRUE(WeightCache(path, "model").Restore(restored.Form(), restored.memory()));
    EXPECT_TRUE(SameBits(restored.memory(), packed.memory()));
    EXPECT_EQ(restored.Panel(0), static_cast<const void*>(restored.memory().view().data));
  }
}

TEST(PackedMatrix, "tells every form from every other") {
  const auto form = [](DType dtype, int64_t n, int64_t k, std::vector<int64_t> bounds) {
    return PackedMatrix(dtype, n, k, std::move(bounds)).Form();
  };
  EXPECT_EQ(form(DType::kBFloat16, 37, 45, {0, 21, 45}), "bfloat16 [37, 45] 0 21 45");
  EXPECT_TRUE(form(DType::kBFloat16, 37, 45, {0, 45}) != form(DType::kFloat16, 37, 45, {0, 45}));
  EXPECT_TRUE(form(DType::kBFloat16, 37, 45, {0, 21, 45}) != form(DType::kBFloat16, 37, 45, {0, 20, 45}));
}

// Files outlive the program that wrote them. Who changes this raises kPackedLayoutVersion.
TEST(PackedMatrix, "has the layout that its version stands for") {
  EXPECT_EQ(kPackedLayoutVersion, 1);
  Random random(6);
  const TestTensor rows = TestTensor(DType::kBFloat16, {20, 7}).Fill(random);
  PackedMatrix pairs(DType::kBFloat16, 20, 7, {0, 3, 7});
  PackedMatrix plain(DType::kFloat32, 20, 7, {0, 3, 7});
  pairs.PackRows(0, rows);
  plain.PackRows(0, rows);
  EXPECT_TRUE(pairs.memory().view().shape == Shape({2 * 8 + 32, 16}));
  EXPECT_TRUE(plain.memory().view().shape == Shape({2 * 8 + 32, 16}));
  for (int64_t row = 0; row < 20; ++row) {
    for (int64_t k = 0; k < 7; ++k) {
      const int64_t packed_k = k < 3 ? k : k + 1;  // the second slice begins at an even position
      const int64_t panel = row / 16 * 8;
      const uint16_t bits = rows.view().Row<uint16_t>(row)[k];
      const uint16_t* lanes = pairs.memory().view().Row<uint16_t>(panel + packed_k / 2 * 2);
      EXPECT_EQ(lanes[row % 16 * 2 + packed_k % 2], bits);
      EXPECT_EQ(plain.memory().view().Row<float>(panel + packed_k)[row % 16], BFloat16ToFloat(bits));
    }
  }
}

}  // namespace
}  // namespace heddle
