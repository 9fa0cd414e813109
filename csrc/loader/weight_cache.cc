#include "loader/weight_cache.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

namespace heddle {
namespace {

constexpr size_t kAlignment = 64;  // of tensors, as kernels want it
constexpr size_t kPage = 4096;
constexpr const char* kIdentityKey = "heddle";

size_t SizeBytes(const Tensor& tensor) {
  return static_cast<size_t>(tensor.view().shape.NumElements()) * DTypeSize(tensor.view().dtype);
}

// A file that has its name once it is complete, and does not exist otherwise.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(path), temporary_(path + ".XXXXXX") {
    fd_ = mkostemp(temporary_.data(), O_CLOEXEC);
  }
  ~NewFile() {
    if (fd_ < 0) return;
    close(fd_);
    if (!published_) unlink(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  bool is_open() const { return fd_ >= 0; }

  bool Write(const char* data, size_t count, const std::atomic<bool>& cancelled) {
    constexpr size_t kChunk = size_t{16} << 20;
    while (count > 0) {
      if (cancelled.load(std::memory_order_relaxed)) return false;
      const ssize_t written = write(fd_, data, std::min(count, kChunk));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      data += written;
      count -= static_cast<size_t>(written);
    }
    return true;
  }

  // The data reaches the disk before the name does: not even a power failure leaves half a file.
  bool Publish() {
    published_ = fsync(fd_) == 0 && rename(temporary_.c_str(), path_.c_str()) == 0;
    return published_;
  }

 private:
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  bool published_ = false;
};

bool HasRoom(const std::string& path, size_t bytes) {
  std::error_code error;
  const auto space = std::filesystem::space(std::filesystem::path(path).parent_path(), error);
  return !error && space.available > bytes;
}

}  // namespace

WeightCache::WeightCache(std::string path, std::string identity)
    : path_(std::move(path)), identity_(std::move(identity)) {
  if (!PathExists(path_)) return;
  try {
    auto file = std::make_unique<SafetensorsFile>(path_);
    const auto found = file->metadata().find(kIdentityKey);
    if (found == file->metadata().end() || found->second != identity_) return;
    data_ = file->MapData();
    file_ = std::move(file);
  } catch (const Error&) {
    // What is in a file that cannot be used makes no difference: Save replaces it.
  }
}

bool WeightCache::Restore(const std::string& name, Tensor& tensor) {
  const TensorView& view = tensor.view();
  const auto restore = [&] {
    if (file_ == nullptr) return false;
    const auto& stored = file_->tensors();
    const auto entry = std::find_if(stored.begin(), stored.end(), [&](const auto& t) { return t.name == name; });
    if (entry == stored.end() || entry->end - entry->begin != SizeBytes(tensor)) return false;
    const char* data = data_.get() + entry->begin;
    if (reinterpret_cast<uintptr_t>(data) % kAlignment != 0) return false;
    tensor = Tensor(view.dtype, view.shape, {data_, data});
    return true;
  };
  const bool restored = restore();
  complete_ = complete_ && restored;
  entries_.emplace_back(name, tensor);
  return restored;
}

bool WeightCache::Save(const std::atomic<bool>& cancelled) const {
  std::vector<Entry> entries = entries_;
  // Entries stand side by side; one of an odd size must not push others off their alignment.
  std::stable_partition(entries.begin(), entries.end(),
                        [](const Entry& entry) { return SizeBytes(entry.second) % kAlignment == 0; });
  std::string header = std::string("{\"__metadata__\":{\"") + kIdentityKey + "\":\"" + identity_ + "\"}";
  size_t end = 0;
  for (const auto& [name, tensor] : entries) {
    const size_t begin = end;
    end += SizeBytes(tensor);
    header += ",\"" + name + R"(":{"dtype":"U8","shape":[)" + std::to_string(end - begin) + R"(],"data_offsets":[)" +
              std::to_string(begin) + "," + std::to_string(end) + "]}";
  }
  header += "}";
  uint64_t length = header.size() + sizeof(length);
  length = (length + kPage - 1) / kPage * kPage - sizeof(length);
  header.resize(length, ' ');
  header.insert(0, reinterpret_cast<const char*>(&length), sizeof(length));

  if (!HasRoom(path_, header.size() + end)) return false;
  NewFile file(path_);
  if (!file.is_open() || !file.Write(header.data(), header.size(), cancelled)) return false;
  for (const auto& [name, tensor] : entries) {
    if (!file.Write(static_cast<const char*>(tensor.view().data), SizeBytes(tensor), cancelled)) return false;
  }
  return file.Publish();
}

}  // namespace heddle
