// The bytes that each token id stands for, and which ids are special. Immutable and shared by all text streamers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace heddle {

class Vocabulary {
 public:
  // `bytes` concatenates the bytes of all tokens; token i is bytes[offsets[i] .. offsets[i + 1]). `special[i]` is
  // nonzero for special tokens. REQUIRES: offsets ascending from 0 to bytes.size(), one longer than special.
  Vocabulary(std::string bytes, std::vector<uint32_t> offsets, std::vector<uint8_t> special);

  int size() const { return static_cast<int>(special_.size()); }
  // Empty for ids beyond the table: a model's output may be wider than its tokenizer.
  std::string_view bytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;

 private:
  std::string bytes_;
  std::vector<uint32_t> offsets_;
  std::vector<uint8_t> special_;
};

}  // namespace heddle
