#include "loader/safetensors.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/file.h"
#include "loader/safetensors_header.h"

namespace heddle {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kLengthBytes = 8;  // of the header's length, before the header
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

[[noreturn]] void Throw(const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::kModelFormat, path + ": " + reason);
}

std::string ReadHeader(const File& file, const std::string& path) {
  constexpr std::string_view kLfsPointer = "version https://git-lfs";
  if (file.size() < kLengthBytes + 2) {
    Throw(path, "only " + std::to_string(file.size()) + " bytes, too short for a safetensors file");
  }
  std::string head(std::min<size_t>(kLfsPointer.size(), static_cast<size_t>(file.size())), '\0');
  file.Read(0, head.size(), head.data());
  if (head == kLfsPointer) Throw(path, "a Git LFS pointer instead of the file itself; fetch it with git lfs pull");

  uint64_t length = 0;
  std::memcpy(&length, head.data(), sizeof(length));
  if (length > kMaxHeaderBytes || length > file.size() - kLengthBytes) {
    Throw(path, "a header of " + std::to_string(length) + " bytes does not fit a file of " +
                    std::to_string(file.size()) + " bytes and the limit of " + std::to_string(kMaxHeaderBytes));
  }
  std::string header(static_cast<size_t>(length), '\0');
  file.Read(kLengthBytes, header.size(), header.data());
  return header;
}

}  // namespace

std::shared_ptr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  const File file(path);
  const std::string header = ReadHeader(file, path);
  const uint64_t data_begin = kLengthBytes + header.size();
  std::vector<SafetensorsTensor> tensors = ParseSafetensorsHeader(header, path, file.size() - data_begin);

  std::shared_ptr<SafetensorsFile> opened(new SafetensorsFile());
  opened->path_ = path;
  opened->device_ = file.device();
  opened->inode_ = file.inode();
  const auto bytes = static_cast<size_t>(file.size());
  void* mapping = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), 0);
  if (mapping == MAP_FAILED) {
    const ErrorCode code = errno == ENOMEM ? ErrorCode::kInsufficientMemory : ErrorCode::kModelFormat;
    throw Error(code, path + ": cannot be mapped: " + std::generic_category().message(errno));
  }
  opened->mapping_ = mapping;
  opened->mapping_bytes_ = bytes;
  opened->entries_.reserve(tensors.size());
  for (SafetensorsTensor& tensor : tensors) {
    const char* data = static_cast<const char*>(mapping) + data_begin + tensor.begin;
    const auto size_bytes = static_cast<size_t>(tensor.end - tensor.begin);
    opened->entries_.push_back({std::move(tensor.name), tensor.dtype, std::move(tensor.shape), data, size_bytes});
  }
  return opened;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

void SafetensorsFile::CheckReadable(const SafetensorsEntry& entry) const {
  const auto begin = static_cast<size_t>(static_cast<const char*>(entry.data) - static_cast<const char*>(mapping_));
  HEDDLE_CHECK(begin <= mapping_bytes_ && entry.size_bytes <= mapping_bytes_ - begin, entry.name);
  struct stat status = {};
  if (stat(path_.c_str(), &status) != 0) return;
  const bool same_file = static_cast<uint64_t>(status.st_dev) == device_ && status.st_ino == inode_;
  if (same_file && static_cast<uint64_t>(status.st_size) != mapping_bytes_) {
    Throw(path_, "was " + std::to_string(mapping_bytes_) + " bytes when it was opened and is " +
                     std::to_string(status.st_size) + " now");
  }
}

}  // namespace heddle
