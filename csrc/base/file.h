// Files of a checkpoint, opened with care: only regular ones, without ever blocking on a pipe or device.
//
// Everything here fails with kModelFormat naming the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
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

  int fd() const { return fd_; }
  uint64_t size() const { return size_; }      // when it was opened
  uint64_t device() const { return device_; }  // with inode(): which file it is, whatever its path comes to name
  uint64_t inode() const { return inode_; }

  // Bytes [offset, offset + count). Fails when the file ends before.
  void Read(uint64_t offset, size_t count, void* destination) const;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  uint64_t device_ = 0;
  uint64_t inode_ = 0;
};

// The whole file. Fails when it is larger than `max_bytes`.
std::string ReadFile(const std::string& path, size_t max_bytes);

// Whether something has that path, of whatever kind.
bool PathExists(const std::string& path);

}  // namespace heddle
