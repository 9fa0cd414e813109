// Files that are written in any order, and read back by the loader.
#include "compress/safetensors_writer.h"

#include <filesystem>

#include "loader/safetensors.h"
#include "loader_testing.h"
#include "temp_folder.h"

namespace heddle {
namespace {

using test::TempFolder;

TEST(SafetensorsWriter, "writes a file that the loader accepts, whatever comes first") {
  const TempFolder folder;
  const std::string path = folder.path() + "/model.safetensors";
  const std::vector<NewTensor> tensors = {
      {"bytes", "U8", {3}}, {"a \"quoted\" name", "I64", {2, 1}}, {"empty", "F32", {0, 4}}, {"halves", "BF16", {2, 2}}};
  SafetensorsWriter writer(path, tensors);
  const std::vector<int64_t> longs = {-1, 1};
  const std::vector<uint16_t> halves = {1, 2, 3, 4};
  writer.Write(3, 4, halves.data() + 2, 4);
  writer.Write(1, 0, longs.data(), 16);
  writer.Write(0, 0, "xyz", 3);
  writer.Write(3, 0, halves.data(), 4);
  writer.Finish();
  EXPECT_EQ(std::filesystem::file_size(path), SafetensorsWriter::FileBytes(tensors));

  const SafetensorsFile file(path);
  EXPECT_EQ(file.tensors().size(), tensors.size());
  for (const SafetensorsTensor& tensor : file.tensors()) {
    std::string data(tensor.end - tensor.begin, '\0');
    file.Read(tensor, 0, data.size(), data.data());
    if (tensor.name == "bytes") EXPECT_EQ(data, "xyz");
    if (tensor.name == "halves") EXPECT_TRUE(std::memcmp(data.data(), halves.data(), 8) == 0);
    if (tensor.name == "a \"quoted\" name") EXPECT_TRUE(std::memcmp(data.data(), longs.data(), 16) == 0);
    // As other programs map them.
    const size_t element = tensor.dtype == "I64" ? 8 : tensor.dtype == "BF16" ? 2 : 1;
    EXPECT_EQ(tensor.begin % element, size_t{0});
  }
}

TEST(SafetensorsWriter, "names the file that cannot be made, and why") {
  const TempFolder folder;
  try {
    const SafetensorsWriter writer(folder.path() + "/none/model.safetensors", {});
    EXPECT_TRUE(false);
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == ErrorCode::kInvalidArgument);
    EXPECT_CONTAINS(error.what(), "/none/model.safetensors cannot be created: No such file or directory");
  }
}

}  // namespace
}  // namespace heddle
