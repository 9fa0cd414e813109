#include "compress/output_folder.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "compress/safetensors_writer.h"

namespace heddle {
namespace {

constexpr std::string_view kPartial = ".partial-";
constexpr size_t kRandomCharacters = 6;  // that mkdtemp puts behind it

// A file that says that the folder is ours to remove.
constexpr const char* kMarker = ".heddle-partial";

bool IsPartialOf(const std::string& output, const std::string& name) {
  const std::string prefix = output + std::string(kPartial);
  return name.starts_with(prefix) && name.size() == prefix.size() + kRandomCharacters &&
         std::all_of(name.begin() + static_cast<std::ptrdiff_t>(prefix.size()), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0; });
}

// Opens a folder, and takes its lock if nobody has it.
int OpenFolder(const std::string& path, bool* locked) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  *locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
  return fd;
}

// A trailing slash would make the name of the folder empty.
std::string Normal(const std::string& path) {
  std::filesystem::path normal = std::filesystem::absolute(path).lexically_normal();
  if (!normal.has_filename()) normal = normal.parent_path();
  return normal.string();
}

void SyncFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!synced) ThrowOutputError(path, "written", error);
}

}  // namespace

OutputFolder::OutputFolder(const std::string& path)
    : path_(Normal(path)), parent_(std::filesystem::path(path_).parent_path().string()) {
  if (PathExists(path_)) {
    throw Error(ErrorCode::kInvalidArgument, "output must be the path of a folder to make, but " + path_ + " exists");
  }
  if (!PathExists(parent_)) {
    throw Error(ErrorCode::kInvalidArgument, "output must lie in a folder that exists, received " + path_);
  }
  RemoveLeftOvers();
  temporary_ = path_ + std::string(kPartial) + std::string(kRandomCharacters, 'X');
  if (mkdtemp(temporary_.data()) == nullptr) ThrowOutputError(path_, "made", errno);
  bool locked = false;
  fd_ = OpenFolder(temporary_, &locked);
  chmod(temporary_.c_str(), 0755);
  try {
    // Once it is locked: another run must not take it for a left-over.
    WriteFile(kMarker, "");
  } catch (...) {
    Discard();
    throw;
  }
}

OutputFolder::~OutputFolder() { Discard(); }

void OutputFolder::Discard() {
  if (!published_) {
    std::error_code ignored;
    std::filesystem::remove_all(temporary_, ignored);
  }
  if (fd_ >= 0) close(fd_);
}

void OutputFolder::RemoveLeftOvers() {
  const std::string output = std::filesystem::path(path_).filename().string();
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(parent_, error)) {
    const std::string name = entry.path().filename().string();
    if (!IsPartialOf(output, name)) continue;
    bool locked = false;
    const int fd = OpenFolder(entry.path(), &locked);
    if (fd >= 0 && !locked) {
      close(fd);
      throw Error(ErrorCode::kInvalidArgument,
                  "output " + path_ + " is being written by another process, into " + name);
    }
    if (fd < 0) continue;
    if (PathExists(entry.path().string() + "/" + kMarker)) {
      std::error_code failure;
      std::filesystem::remove_all(entry.path(), failure);
      if (!failure) removed_.push_back(name);
    }
    close(fd);
  }
}

uint64_t OutputFolder::available_bytes() const {
  std::error_code error;
  const auto space = std::filesystem::space(temporary_, error);
  if (error) ThrowOutputError(path_, "examined", error.value());
  return space.available;
}

void OutputFolder::WriteFile(const std::string& name, const std::string& contents) const {
  const std::string path = temporary_ + "/" + name;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) ThrowOutputError(path, "created", errno);
  size_t at = 0;
  int error = 0;
  while (at < contents.size() && error == 0) {
    const ssize_t written = write(fd, contents.data() + at, contents.size() - at);
    if (written >= 0) {
      at += static_cast<size_t>(written);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (error == 0 && fsync(fd) != 0) error = errno;
  close(fd);
  if (error != 0) ThrowOutputError(path, "written", error);
}

void OutputFolder::Publish() {
  // Complete: whoever dies from here on leaves something worth keeping.
  if (unlink((temporary_ + "/" + kMarker).c_str()) != 0) ThrowOutputError(path_, "written", errno);
  if (fsync(fd_) != 0) ThrowOutputError(path_, "written", errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) ThrowOutputError(path_, "given its name", errno);
  published_ = true;
  SyncFolder(parent_);
}

}  // namespace heddle
