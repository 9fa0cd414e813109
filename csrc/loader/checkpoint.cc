#include "loader/checkpoint_files.h"
#include "loader/file_tensor.h"
#include "loader/weight_source.h"

namespace heddle {
namespace {

class Checkpoint : public WeightSource {
 public:
  explicit Checkpoint(const std::string& folder) : files_(folder) {}

  std::unique_ptr<StoredTensor> Get(const std::string& name, const Shape& shape) override {
    const LocatedTensor& located = files_.Get(name, {{shape}, kFloatDTypes});
    return std::make_unique<FileTensor>(located, shape);
  }

  bool Has(const std::string& name) const override { return files_.Find(name) != nullptr; }
  std::vector<std::string> Unused() const override { return files_.Unused(); }

 private:
  CheckpointFiles files_;
};

}  // namespace

std::unique_ptr<WeightSource> OpenCheckpoint(const std::string& folder) { return std::make_unique<Checkpoint>(folder); }

}  // namespace heddle
