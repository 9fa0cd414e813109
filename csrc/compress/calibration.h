// Runs text through the dense model, and keeps what is to be known of the inputs of its linear layers. On CPU.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "compress/source_checkpoint.h"
#include "layers/context.h"
#include "models/registry.h"

namespace heddle {

// Of the inputs that one or more matrices share, over all rows that were seen.
struct InputStatistics {
  std::vector<std::string> prefixes;  // of those matrices
  std::vector<float> largest;         // [columns] magnitude
  std::vector<double> squares;        // [columns] sum
  Tensor hessian;                     // [columns, columns] f32 sum of x x^T, on and below the diagonal; or empty

  int64_t columns() const { return static_cast<int64_t>(largest.size()); }
};

// Collects them while a model runs. On the rank's thread.
class InputObserver : public LinearObserver {
 public:
  void Observe(Stream& stream, std::span<const std::string> prefixes, const TensorView& x) override;

  // Begins anew. Second moments are summed for these inputs only, named by the first of the matrices that share them.
  void Begin(std::set<std::string> with_hessian);

  // By the first of the matrices that share an input.
  const std::map<std::string, InputStatistics>& statistics() const { return statistics_; }
  // REQUIRES: it was summed, and not taken before.
  Tensor TakeHessian(const std::string& input);

 private:
  std::map<std::string, InputStatistics> statistics_;
  std::set<std::string> with_hessian_;
};

// The dense model, with all that it needs to run sequences of at most `max_tokens`, one after another.
class CalibrationModel {
 public:
  // Fails as an engine does: kModelFormat, kUnsupportedModel, kInsufficientMemory. All that is given outlives this.
  CalibrationModel(const SourceCheckpoint& source, int max_tokens, Stream& stream, LinearObserver& observer,
                   const std::atomic<bool>& cancelled);
  ~CalibrationModel();

  // Fails with kInvalidArgument for an id beyond the vocabulary, and with kCancelled.
  void Run(std::span<const int32_t> token_ids);

  // Memory that it takes, from the config alone.
  static int64_t SizeBytes(const SourceCheckpoint& source, int max_tokens);

 private:
  ModelConfig config_;
  Stream& stream_;
  const std::atomic<bool>& cancelled_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<WeightSource> weights_;
  HostSlab slab_;
  std::unique_ptr<CausalLM> model_;
  std::unique_ptr<KVCache> kv_cache_;
  std::unique_ptr<Arena> arena_;
};

}  // namespace heddle
