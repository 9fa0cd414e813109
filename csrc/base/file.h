// Files of a checkpoint, opened with care: only regular ones, without ever blocking on a pipe or device.
//
// Everything here fails with kModelFormat naming the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace heddle {

// An open regular file; closed on destruction.
class File {
 public:
  // For reading.
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened

  // Bytes [offset, offset + count). Fails when the file ends before. Any thread.
  void Read(uint64_t offset, size_t count, void* destination) const;

  // The whole file in memory, read-only; outlives this object, and the file's name. Whoever cuts the file then ends the
  // process at the next touch (SIGBUS): for files of our own only. REQUIRES: not empty.
  std::shared_ptr<const char> Map() const;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// The whole file. Fails when it is larger than `max_bytes`.
std::string ReadFile(const std::string& path, size_t max_bytes);

// Whether something has that path, of whatever kind. True when that cannot be known: opening it will say why.
bool PathExists(const std::string& path);

}  // namespace heddle
