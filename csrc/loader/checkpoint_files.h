// The files of a checkpoint and their tensors by name, of whatever dtype: model.safetensors, or the shards that
// model.safetensors.index.json names.
//
// All files are opened, validated and kept open. The index must map every tensor of every shard to that shard, and
// nothing else. A file that is replaced or deleted later stays readable. Failures are kModelFormat naming file and
// reason. Immutable but for the marks of what was asked for, so thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "loader/safetensors.h"
#include "tensor/tensor.h"

namespace heddle {

// A tensor and the file that holds it, which keeps the entry valid.
struct LocatedTensor {
  const SafetensorsTensor* entry;
  std::shared_ptr<const SafetensorsFile> file;
};

// What a tensor has to be: of one of these shapes and one of these dtypes, as files spell them. `reason` stands behind
// the expectation in messages, e.g. ", as quantization_config says".
struct TensorForm {
  std::vector<Shape> shapes;
  std::vector<std::string_view> dtypes;
  std::string reason = "";
};

class CheckpointFiles {
 public:
  explicit CheckpointFiles(std::string folder);

  const std::string& folder() const { return folder_; }

  // Null when there is none of that name. Valid as long as this object.
  const LocatedTensor* Find(const std::string& name) const;

  // Counts as asked for from now on. Fails when it is missing or of another form; the message names the tensor, what
  // was expected and what was found.
  const LocatedTensor& Get(const std::string& name, const TensorForm& form) const;

  // Names that exist and that nobody has asked for.
  std::vector<std::string> Unused() const;

 private:
  std::string folder_;
  std::vector<LocatedTensor> tensors_;  // sorted by name
  std::unique_ptr<std::atomic<bool>[]> used_;
};

}  // namespace heddle
