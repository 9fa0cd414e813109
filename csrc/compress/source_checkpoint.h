// The checkpoint that is made smaller: its shards, which of their tensors are matrices of linear layers, and the rows
// of those, whether they are stored dense or 2:4.
//
// Immutable after construction, so thread-safe.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "loader/safetensors.h"
#include "loader/stored_quantization.h"
#include "loader/weight_source.h"
#include "tensor/tensor.h"

namespace heddle {

// A matrix of a linear layer: `<prefix>.weight`.
struct SourceMatrix {
  std::string prefix;
  int64_t rows = 0;
  int64_t columns = 0;
  DType dtype = DType::kFloat32;
  size_t shard = 0;
  bool sparse = false;                         // stored as `compressed` and `bitmask`
  std::shared_ptr<const StoredTensor> stored;  // dense to its readers

  int64_t size_bytes() const { return rows * columns * static_cast<int64_t>(DTypeSize(dtype)); }
};

class SourceCheckpoint {
 public:
  struct Shard {
    std::string name;
    std::unique_ptr<const SafetensorsFile> file;
    std::vector<const SafetensorsTensor*> others;  // than those of matrices
  };

  // Fails with kModelFormat and kUnsupportedModel as the loader does, and with kInvalidArgument when the checkpoint is
  // quantised already.
  explicit SourceCheckpoint(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const std::string& config_text() const { return config_text_; }
  const Json& config() const { return config_; }
  const std::vector<Shard>& shards() const { return shards_; }
  bool has_index() const { return has_index_; }
  const std::vector<SourceMatrix>& matrices() const { return matrices_; }
  int64_t size_bytes() const;                                   // of all tensors
  const StoredQuantization& stored() const { return stored_; }  // which is at most 2:4

  // Rows [begin, end) of a matrix, [end - begin, columns] f32.
  void ReadRows(const SourceMatrix& matrix, int64_t begin, int64_t end, float* out) const;

  // A vector as it is stored, widened. Fails with kModelFormat when there is none of this name and a float dtype.
  struct Vector {
    size_t shard = 0;
    DType dtype = DType::kFloat32;
    std::vector<float> values;
  };
  Vector ReadVector(const std::string& name) const;
  bool Has(const std::string& name) const;

 private:
  // Adds the names of the tensors that matrices consist of to `parts`.
  void FindMatrices(size_t shard, std::set<std::string>& parts);

  std::string folder_;
  std::string config_text_;
  Json config_;
  bool has_index_ = false;
  StoredQuantization stored_;
  std::unique_ptr<WeightSource> weights_;
  std::vector<Shard> shards_;
  std::vector<SourceMatrix> matrices_;
};

}  // namespace heddle
