// A rank's weights in the form in which it keeps them, in a file of their own: the next start maps it instead of making
// them again.
//
// The file is a safetensors file with an entry of plain bytes for each tensor; its metadata says what the weights are
// of. It is never changed in place, only replaced as a whole, so that engines can share it and none sees half of it.
//
// One object serves one load of one rank, on the rank's thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loader/safetensors.h"
#include "tensor/tensor.h"

namespace heddle {

class WeightCache {
 public:
  // Opens the file `path` if it was saved for the same `identity`. Anything else that is there (cut, broken, of another
  // identity) counts as absent. REQUIRES: an identity without quotes, backslashes and control characters; so for names.
  WeightCache(std::string path, std::string identity);

  // When the file has `name` in the size of `tensor`, makes it a read-only view of that, which outlives this. Otherwise
  // the caller fills `tensor`. In both cases it is what Save keeps under that name. REQUIRES: no name comes twice.
  bool Restore(const std::string& name, Tensor& tensor);

  // Whether all that was asked for was there.
  bool complete() const { return complete_; }

  // Replaces the file with all that was asked for; only its owner may read it. False, with nothing left behind, when it
  // cannot be written, does not fit on the disk, or `cancelled` is set meanwhile.
  bool Save(const std::atomic<bool>& cancelled) const;

 private:
  using Entry = std::pair<std::string, Tensor>;

  std::string path_;
  std::string identity_;
  std::unique_ptr<const SafetensorsFile> file_;  // or null
  std::shared_ptr<const char> data_;             // of file_
  std::vector<Entry> entries_;                   // asked for
  bool complete_ = true;
};

}  // namespace heddle
