// A safetensors file under way: all of its room is claimed at once, then its tensors are filled in, in any order.
//
// Write may be called by several threads, everything else by one. What the system refuses fails with
// kInvalidArgument, naming the file: it is the output that was asked for. A file that was not finished stays behind,
// for whoever owns the folder to remove.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace heddle {

struct NewTensor {
  std::string name;
  std::string dtype;  // as the format spells it, "BF16" say
  std::vector<int64_t> shape;

  uint64_t SizeBytes() const;
};

class SafetensorsWriter {
 public:
  // The tensors come to lie in the file by the size of their elements, the largest first, and then by name, so that
  // each is aligned. REQUIRES: names differ.
  SafetensorsWriter(std::string path, const std::vector<NewTensor>& tensors);
  // Bytes [offset, offset + count) of tensors[tensor].
  void Write(size_t tensor, uint64_t offset, const void* data, size_t count);

  // Brings all to the disk.
  void Finish();

  // The size of such a file, to within the rounding of its header.
  static uint64_t FileBytes(const std::vector<NewTensor>& tensors);

 private:
  struct Place {
    uint64_t begin;  // in the file
    uint64_t size;
  };

  // Closed on destruction.
  class Descriptor {
   public:
    Descriptor() = default;
    ~Descriptor();
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int fd = -1;
  };

  std::string path_;
  std::vector<Place> places_;  // of each tensor
  Descriptor file_;
};

// As SafetensorsWriter fails: "output <path> cannot be <what>: <the system's reason for `error`>".
[[noreturn]] void ThrowOutputError(const std::string& path, const std::string& what, int error);

}  // namespace heddle
