#include "text/vocabulary.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace heddle {

Vocabulary::Vocabulary(std::string bytes, std::vector<uint32_t> offsets, std::vector<uint8_t> special)
    : bytes_(std::move(bytes)), offsets_(std::move(offsets)), special_(std::move(special)) {
  HEDDLE_CHECK(offsets_.size() == special_.size() + 1,
               std::to_string(offsets_.size()) + " offsets, " + std::to_string(special_.size()) + " tokens");
  HEDDLE_CHECK(
      offsets_.front() == 0 && offsets_.back() == bytes_.size() && std::is_sorted(offsets_.begin(), offsets_.end()),
      std::to_string(bytes_.size()) + " bytes");
}

std::string_view Vocabulary::bytes(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const size_t begin = offsets_[static_cast<size_t>(id)];
  return std::string_view(bytes_).substr(begin, offsets_[static_cast<size_t>(id) + 1] - begin);
}

bool Vocabulary::IsSpecial(int32_t id) const {
  return id >= 0 && id < size() && special_[static_cast<size_t>(id)] != 0;
}

}  // namespace heddle
