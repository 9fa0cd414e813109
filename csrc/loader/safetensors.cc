#include "loader/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"

namespace heddle {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kLengthBytes = 8;  // of the header's length, before the header
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

[[noreturn]] void Throw(const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::kModelFormat, path + ": " + reason);
}

std::string ReadHeader(const File& file) {
  constexpr std::string_view kLfsPointer = "version https://git-lfs";
  if (file.size() < kLengthBytes + 2) {
    Throw(file.path(), "only " + std::to_string(file.size()) + " bytes, too short for a safetensors file");
  }
  std::string head(std::min<size_t>(kLfsPointer.size(), static_cast<size_t>(file.size())), '\0');
  file.Read(0, head.size(), head.data());
  if (head == kLfsPointer)
    Throw(file.path(), "a Git LFS pointer instead of the file itself; fetch it with git lfs pull");

  uint64_t length = 0;
  std::memcpy(&length, head.data(), sizeof(length));
  if (length > kMaxHeaderBytes || length > file.size() - kLengthBytes) {
    Throw(file.path(), "a header of " + std::to_string(length) + " bytes does not fit a file of " +
                           std::to_string(file.size()) + " bytes and the limit of " + std::to_string(kMaxHeaderBytes));
  }
  std::string header(static_cast<size_t>(length), '\0');
  file.Read(kLengthBytes, header.size(), header.data());
  return header;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  const std::string header = ReadHeader(file_);
  data_begin_ = kLengthBytes + header.size();
  header_ = ParseSafetensorsHeader(header, path, file_.size() - data_begin_);
}

void SafetensorsFile::Read(const SafetensorsTensor& tensor, uint64_t offset, uint64_t count, void* destination) const {
  const uint64_t size = tensor.end - tensor.begin;
  HEDDLE_CHECK(offset <= size && count <= size - offset, tensor.name);
  file_.Read(data_begin_ + tensor.begin + offset, static_cast<size_t>(count), destination);
}

std::shared_ptr<const char> SafetensorsFile::MapData() const {
  std::shared_ptr<const char> file = file_.Map();
  return {file, file.get() + data_begin_};
}

}  // namespace heddle
