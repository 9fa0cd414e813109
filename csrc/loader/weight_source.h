// Names and shapes in, tensors out: where layers get their weights from. No sharding here; layers slice.
//
// Get is called by the ranks' threads at the same time, and is thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace heddle {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // The tensor `name`, checked to have `shape`. The tensor keeps alive what it points to.
  // Fails with kModelFormat: missing, another shape, or a dtype that is not a float format; the message names the
  // tensor, what was expected and what was found.
  virtual Tensor Get(const std::string& name, const Shape& shape) = 0;

  virtual bool Has(const std::string& name) const = 0;

  // Names that exist and that nobody has asked for.
  virtual std::vector<std::string> Unused() const = 0;
};

// model.safetensors, or the shards that model.safetensors.index.json names, all of them opened, validated and mapped.
// Fails with kModelFormat naming file and reason, before any weight is read. The index must map every tensor of every
// shard to that shard, and nothing else. Get also fails with kModelFormat when a file has changed its size since (a
// best effort: a file that shrinks while its tensors are read raises SIGBUS).
std::unique_ptr<WeightSource> OpenCheckpoint(const std::string& folder);

// Random weights of any name and shape: close to normal with a standard deviation of 0.02, norms 1, repeatable by name.
// Has every name. For benchmarks. REQUIRES: a float dtype.
std::unique_ptr<WeightSource> DummyWeights(DType dtype);

}  // namespace heddle
