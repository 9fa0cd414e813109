// The header of a safetensors file: text in, checked tensors out. The checks are those of loader/safetensors.h.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace heddle {

struct SafetensorsTensor {
  std::string name;
  std::string_view dtype;  // as in the file; static storage
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes [begin, end) of the data that follows the header, all within it
  uint64_t end = 0;
  size_t header_offset = 0;  // where the header describes it
};

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;       // in the header's order
  std::map<std::string, std::string> metadata;  // of `__metadata__`
};

// `path` names the file in messages; `data_bytes` follow the header in it. Fails with
// kModelFormat.
SafetensorsHeader ParseSafetensorsHeader(std::string_view header, const std::string& path, uint64_t data_bytes);

}  // namespace heddle
