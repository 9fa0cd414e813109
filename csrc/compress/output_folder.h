// A folder that has its name once it is complete, and does not exist otherwise.
//
// Until then it is `<name>.partial-XXXXXX` beside it, locked by this process, with a file that marks it as its own.
// One with that file that is not locked is what a killed run left behind, and goes when the next run wants the same
// name.
//
// One thread.
#pragma once

#include <string>
#include <vector>

namespace heddle {

class OutputFolder {
 public:
  // Fails with kInvalidArgument when `path` exists, another process is writing it, or it cannot be made.
  explicit OutputFolder(const std::string& path);
  // Removes what was not published.
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::string& temporary() const { return temporary_; }
  // Names of what killed runs had left, removed by the constructor.
  const std::vector<std::string>& removed() const { return removed_; }
  // Bytes that fit on its disk.
  uint64_t available_bytes() const;

  // A small file in it, on the disk when this returns. Fails with kInvalidArgument.
  void WriteFile(const std::string& name, const std::string& contents) const;

  // Gives the folder its name: not even a power failure leaves half of it there. Fails with kInvalidArgument.
  void Publish();

 private:
  void RemoveLeftOvers();
  void Discard();

  std::string path_;
  std::string parent_;
  std::string temporary_;
  std::vector<std::string> removed_;
  int fd_ = -1;  // of temporary_; holds the lock
  bool published_ = false;
};

}  // namespace heddle
