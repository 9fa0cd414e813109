// One safetensors file, open for reading and its header fully checked.
//
// Checks, in order: regular file of at least 10 bytes; header length within the file and 100,000,000 bytes; strict
// JSON that begins with '{'; at most 1,000,000 tensors; names of 1..512 bytes without NUL; `__metadata__` maps strings
// to strings; each tensor has exactly dtype, shape and data_offsets; known dtype; rank at most 8, dimensions at most
// 2^40, products without overflow; offsets ordered, of exactly the tensor's size, contiguous from 0 to the end of the
// file without hole or overlap. Violations fail with kModelFormat naming file and reason.
//
// Immutable after construction, so thread-safe. Little-endian machines only, as the format is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "loader/safetensors_header.h"

namespace heddle {

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::vector<SafetensorsTensor>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

  // Bytes [offset, offset + count) of a tensor. Fails with kModelFormat when they cannot be read, as when the file was
  // cut since it was opened. REQUIRES: one of tensors(), bytes within it.
  void Read(const SafetensorsTensor& tensor, uint64_t offset, uint64_t count, void* destination) const;

  // The data that tensors() lie in, as File::Map.
  std::shared_ptr<const char> MapData() const;

 private:
  File file_;
  uint64_t data_begin_ = 0;
  SafetensorsHeader header_;
};

}  // namespace heddle
