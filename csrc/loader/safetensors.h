// One safetensors file, mapped read-only and fully checked on opening.
//
// Checks, in order: regular file of at least 10 bytes; header length within the file and 100,000,000 bytes; strict
// JSON that begins with '{'; at most 1,000,000 tensors; names of 1..512 bytes without NUL; `__metadata__` maps strings
// to strings; each tensor has exactly dtype, shape and data_offsets; known dtype; rank at most 8, dimensions at most
// 2^40, products without overflow; offsets ordered, of exactly the tensor's size, contiguous from 0 to the end of the
// file without hole or overlap. Violations fail with kModelFormat naming file and reason.
//
// Immutable after Open, so thread-safe. Little-endian machines only, as the format is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace heddle {

struct SafetensorsEntry {
  std::string name;
  std::string_view dtype;  // as in the file: "BF16", "F32", "I8", ...; static storage
  std::vector<int64_t> shape;
  const void* data = nullptr;  // into the mapping; aligned only as the file aligns it
  size_t size_bytes = 0;
};

class SafetensorsFile {
 public:
  // The mapping lives as long as the object: whoever keeps a pointer into it keeps the object. No descriptor stays
  // open.
  static std::shared_ptr<SafetensorsFile> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in the header's order

  // Fails with kModelFormat when the file has changed its size since it was opened: reading pages that are gone would
  // raise SIGBUS. A best effort, since it may shrink a moment later. A file that was replaced or deleted, rather than
  // written over, stays readable. REQUIRES: one of entries().
  void CheckReadable(const SafetensorsEntry& entry) const;

 private:
  SafetensorsFile() = default;

  std::string path_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  uint64_t device_ = 0;  // with inode_: which file it was
  uint64_t inode_ = 0;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace heddle
