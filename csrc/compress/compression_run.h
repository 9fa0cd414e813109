// The part of making a checkpoint smaller that looks at weights: calibration, and what becomes of each matrix.
//
// One thread, with those of its stream. All that is given outlives this.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "compress/calibration.h"
#include "compress/checkpoint_writer.h"
#include "compress/layer_inputs.h"
#include "compress/smooth_quant.h"
#include "compress/sparse_gpt.h"

namespace heddle {

class CompressionRun {
 public:
  // Fails as CalibrationModel does where calibration is needed and the model does not fit into memory.
  CompressionRun(const SourceCheckpoint& source, const OutputPlan& plan, const CompressionOptions& options,
                 Stream& stream, const std::function<void(double)>& on_progress, const std::atomic<bool>& cancelled);

  // Writes every tensor of the new checkpoint.
  void Write(CheckpointWriter& writer);

  int num_passes() const { return static_cast<int>(passes_.size()); }
  int64_t memory_bytes() const { return memory_bytes_; }  // at most, beside a few MiB

 private:
  // Inputs whose second moments are summed in one pass of the text; in order.
  using Pass = std::vector<LayerInput>;

  void PlanPasses();
  int64_t PruningBytes(const LayerInput& input) const;
  void Calibrate(const Pass& pass, CalibrationModel& model);
  void Prune(const Pass& pass, CheckpointWriter& writer);
  void PruneMatrix(const PlannedMatrix& matrix, const HessianFactor& factor, CheckpointWriter& writer);
  void UseStatistics();
  CheckpointWriter::ChangeRows ChangeOf(const PlannedMatrix& matrix) const;
  void Report(double fraction_of_phase);

  const SourceCheckpoint& source_;
  const OutputPlan& plan_;
  const CompressionOptions& options_;
  Stream& stream_;
  const std::function<void(double)>& on_progress_;
  const std::atomic<bool>& cancelled_;

  DecoderInputs inputs_;
  std::vector<Pass> passes_;
  InputObserver observer_;
  Smoothing smoothing_;
  std::map<std::string, std::vector<float>> input_norms_;  // Wanda's, by the prefix of a matrix
  std::set<std::string> written_;                          // prefixes
  int64_t memory_bytes_ = 0;
  int num_phases_ = 1;
  int phase_ = 0;
};

}  // namespace heddle
