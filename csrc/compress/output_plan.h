// What the smaller checkpoint consists of, before anything of it is written: the form of each matrix, the tensors of
// each file, the size of all.
#pragma once

#include <string>
#include <vector>

#include "compress/compression.h"
#include "compress/matrix_output.h"
#include "compress/source_checkpoint.h"

namespace heddle {

struct PlannedMatrix {
  const SourceMatrix* source = nullptr;
  MatrixForm form = MatrixForm::kDense;
  bool targeted = false;  // by the options: not one that they ignore
  size_t first = 0;       // of its tensors in its shard

  MatrixOutput Output() const { return {source->prefix, form, source->rows, source->columns, source->dtype}; }
};

struct PlannedShard {
  std::vector<NewTensor> tensors;
  std::vector<const SafetensorsTensor*> others;  // the last of them, taken over as they are
  size_t first_other() const { return tensors.size() - others.size(); }
};

class OutputPlan {
 public:
  // Looks at weights only to see which matrices are 2:4 already. Fails with kInvalidArgument when the options do not
  // suit the checkpoint: nothing to do, a name to ignore that there is not, a matrix that cannot be pruned. `source`
  // outlives this.
  OutputPlan(const SourceCheckpoint& source, const CompressionOptions& options);

  const std::vector<PlannedMatrix>& matrices() const { return matrices_; }
  const std::vector<PlannedShard>& shards() const { return shards_; }  // one a shard of the source
  uint64_t output_bytes() const;                                       // of all shards

  // The text of the new config.json and, for a checkpoint that has one, model.safetensors.index.json.
  std::string Config() const;
  std::string Index() const;

 private:
  void ChooseForms(const CompressionOptions& options);

  const SourceCheckpoint& source_;
  CompressionScheme scheme_;
  bool pruned_;
  std::vector<PlannedMatrix> matrices_;
  std::vector<PlannedShard> shards_;
};

}  // namespace heddle
