// Names and shapes in, rows of tensors out: where layers get their weights from. No sharding here; layers slice.
//
// Sources and their tensors are used by all compute threads of all ranks at the same time, and are thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace heddle {

// One tensor where it is stored. The source outlives it.
class StoredTensor {
 public:
  StoredTensor(DType dtype, const Shape& shape, std::vector<float> row_scales = {})
      : dtype_(dtype), shape_(shape), row_scales_(std::move(row_scales)) {}
  virtual ~StoredTensor() = default;

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }

  // Of an int8 matrix the scale of each row, shape()[0] of them, finite and above zero: value = element * scale.
  // Otherwise empty.
  std::span<const float> row_scales() const { return row_scales_; }

  // Copies rows [row, row + rows.dim(0)) of dimension 0 into `rows`: contiguous, of the same dtype and other
  // dimensions. The values do not depend on how rows are cut. Fails with kModelFormat when the file cannot be read or
  // has become too short.
  void Read(int64_t row, const TensorView& rows) const;

 private:
  // Elements [begin, begin + count), in row-major order; whole rows.
  virtual void ReadElements(int64_t begin, int64_t count, void* destination) const = 0;

  DType dtype_;
  Shape shape_;
  std::vector<float> row_scales_;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // The tensor `name`, checked to have `shape`. Reads nothing yet but the scales of an int8 matrix.
  // Fails with kModelFormat: missing, another shape, or another dtype than a float format or the one that the
  // checkpoint is said to have; the message names the tensor, what was expected and what was found.
  virtual std::unique_ptr<StoredTensor> Get(const std::string& name, const Shape& shape) = 0;

  virtual bool Has(const std::string& name) const = 0;

  // Names that exist and that nobody has asked for.
  virtual std::vector<std::string> Unused() const = 0;
};

// model.safetensors, or the shards that model.safetensors.index.json names, all of them opened, validated and kept
// open. Fails with kModelFormat naming file and reason, before any weight is read. The index must map every tensor of
// every shard to that shard, and nothing else. A file that is replaced or deleted later stays readable.
std::unique_ptr<WeightSource> OpenCheckpoint(const std::string& folder);

// Random weights of any name and shape: close to normal with a standard deviation of 0.02, norms 1, repeatable by name.
// Has every name. For benchmarks. With `sparse` two of every four neighbours are zero. REQUIRES: a float dtype.
std::unique_ptr<WeightSource> DummyWeights(DType dtype, bool sparse = false);

}  // namespace heddle
