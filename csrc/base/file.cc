#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace heddle {
namespace {

[[noreturn]] void Throw(const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::kModelFormat, path + ": " + reason);
}

[[noreturn]] void ThrowErrno(const std::string& path, const std::string& what, int error) {
  Throw(path, what + ": " + std::generic_category().message(error));
}

// A path with a NUL would silently name another file.
int OpenForReading(const std::string& path) {
  if (path.find('\0') != std::string::npos) Throw(path.substr(0, path.find('\0')), "the path contains a NUL");
  int fd = -1;
  do {
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) ThrowErrno(path, "cannot be opened", errno);
  return fd;
}

}  // namespace

File::File(const std::string& path) : path_(path), fd_(OpenForReading(path)) {
  struct stat status = {};
  const int error = fstat(fd_, &status) == 0 ? 0 : errno;
  if (error != 0 || !S_ISREG(status.st_mode)) {
    close(fd_);  // the destructor does not run
    if (error != 0) ThrowErrno(path, "cannot be examined", error);
    Throw(path, "not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

File::~File() { close(fd_); }

void File::Read(uint64_t offset, size_t count, void* destination) const {
  auto* out = static_cast<char*>(destination);
  while (count > 0) {
    const ssize_t read = pread(fd_, out, count, static_cast<off_t>(offset));
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) ThrowErrno(path_, "cannot be read", errno);
    if (read == 0) Throw(path_, "ended before byte " + std::to_string(offset) + " while it was read");
    out += read;
    offset += static_cast<uint64_t>(read);
    count -= static_cast<size_t>(read);
  }
}

std::shared_ptr<const char> File::Map() const {
  const auto bytes = static_cast<size_t>(size_);
  void* memory = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_, 0);
  if (memory == MAP_FAILED) ThrowErrno(path_, "cannot be mapped", errno);
  return {static_cast<const char*>(memory), [bytes](const char* p) { munmap(const_cast<char*>(p), bytes); }};
}

std::string ReadFile(const std::string& path, size_t max_bytes) {
  const File file(path);
  if (file.size() > max_bytes) {
    Throw(path, std::to_string(file.size()) + " bytes, at most " + std::to_string(max_bytes) + " are read");
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.Read(0, text.size(), text.data());
  return text;
}

bool PathExists(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

}  // namespace heddle
