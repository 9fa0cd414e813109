// One safetensors file, mapped read-only and fully checked on opening.
//
// Checks, in order: regular file of at least 10 bytes; header length within the file and 100,000,000 bytes; strict
// JSON that begins with '{'; at most 1,000,000 tensors; names of 1..512 bytes without NUL; `__metadata__` maps strings
// to strings; each tensor has exactly dtype, shape and data_offsets; known dtype; rank at most 8, dimensions at most
// 2^40, products without overflow; offsets ordered, of exactly the tensor's size, contiguous from 0 to the end of the
// file without hole or overlap. Violations fail with kModelFormat naming file and reason.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace heddle {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as in the file: "BF16", "F32", "I8", ...
  std::vector<int64_t> shape;
  const void* data;            // into the mapping
  size_t size_bytes;
};

class SafetensorsFile {
 public:
  static std::shared_ptr<SafetensorsFile> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in file order

 private:
  SafetensorsFile() = default;
  std::string path_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace heddle
