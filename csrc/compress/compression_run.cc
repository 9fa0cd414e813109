#include "compress/compression_run.h"

#include <algorithm>
#include <cmath>

#include "base/rounding.h"
#include "compress/rows.h"
#include "device/host_memory.h"

namespace heddle {
namespace {

constexpr int64_t kFloat = sizeof(float);

bool Calibrates(const CompressionOptions& options) {
  return options.smooth > 0 || options.pruning == PruningMethod::kWanda || options.pruning == PruningMethod::kSparseGpt;
}

int MaxTokens(const CompressionOptions& options) {
  size_t most = 0;
  for (const auto& sequence : options.sequences) most = std::max(most, sequence.size());
  return static_cast<int>(most);
}

void MultiplyColumns(std::span<float> rows, const std::vector<float>& scales) {
  for (size_t at = 0; at < rows.size(); at += scales.size()) {
    for (size_t i = 0; i < scales.size(); ++i) rows[at + i] *= scales[i];
  }
}

// Keeps the weights of the largest magnitude, times their input's norm if given.
void PruneRows(std::span<float> rows, int64_t columns, const std::vector<float>* input_norms) {
  std::vector<float> scores(static_cast<size_t>(columns));
  std::vector<uint8_t> mask(static_cast<size_t>(MaskBytes(columns)));
  for (size_t at = 0; at < rows.size(); at += scores.size()) {
    const std::span<float> row = rows.subspan(at, scores.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] = std::fabs(row[i]) * (input_norms != nullptr ? (*input_norms)[i] : 1.0f);
    }
    TwoOfFourMask(scores, mask.data());
    ApplyMask(mask.data(), row);
  }
}

}  // namespace

CompressionRun::CompressionRun(const SourceCheckpoint& source, const OutputPlan& plan,
                               const CompressionOptions& options, Stream& stream,
                               const std::function<void(double)>& on_progress, const std::atomic<bool>& cancelled)
    : source_(source),
      plan_(plan),
      options_(options),
      stream_(stream),
      on_progress_(on_progress),
      cancelled_(cancelled) {
  for (const SourceMatrix& matrix : source.matrices()) {
    memory_bytes_ = std::max(memory_bytes_, stream.threads().num_threads() * CheckpointWriter::ThreadBytes(matrix));
  }
  if (Calibrates(options)) PlanPasses();
}

int64_t CompressionRun::PruningBytes(const LayerInput& input) const {
  int64_t values = 0;
  for (const SourceMatrix& matrix : source_.matrices()) {
    const bool shares = std::find(input.prefixes.begin(), input.prefixes.end(), matrix.prefix) != input.prefixes.end();
    if (shares) values = std::max(values, matrix.rows * matrix.columns);
  }
  return HessianFactor::SizeBytes(input.columns) + values * kFloat;
}

void CompressionRun::PlanPasses() {
  if (options_.sequences.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "calibration must have some text, received none");
  }
  inputs_ = FindLayerInputs(source_);
  const int64_t available = AvailableHostMemory();
  const int64_t wanted = options_.memory_bytes > 0 ? options_.memory_bytes : available / 2;
  int64_t fixed = memory_bytes_ + CalibrationModel::SizeBytes(source_, MaxTokens(options_));
  const bool with_hessians = options_.pruning == PruningMethod::kSparseGpt;
  if (with_hessians) {
    int64_t most = 0;
    for (const LayerInput& input : inputs_.inputs) most = std::max(most, PruningBytes(input));
    fixed += most;
  }
  int64_t taken = 0;  // by the pass
  int64_t most_taken = 0;
  for (const LayerInput& input : inputs_.inputs) {
    const int64_t bytes = with_hessians ? input.columns * input.columns * kFloat : 0;
    if (passes_.empty() || (fixed + taken + bytes > wanted && taken > 0)) {
      passes_.emplace_back();
      taken = 0;
    }
    passes_.back().push_back(input);
    taken += bytes;
    most_taken = std::max(most_taken, taken);
  }
  memory_bytes_ = fixed + most_taken;
  if (memory_bytes_ > available) {
    throw Error(ErrorCode::kInsufficientMemory,
                "calibration needs " + std::to_string(CeilDiv(memory_bytes_, int64_t{1} << 20)) + " MiB, but only " +
                    std::to_string(available >> 20) + " MiB of memory are available");
  }
  num_phases_ += num_passes() * (with_hessians ? 2 : 1);
}

void CompressionRun::Report(double fraction_of_phase) { on_progress_((phase_ + fraction_of_phase) / num_phases_); }

void CompressionRun::Calibrate(const Pass& pass, CalibrationModel& model) {
  std::set<std::string> names;
  for (const LayerInput& input : pass) names.insert(input.prefixes[0]);
  observer_.Begin(options_.pruning == PruningMethod::kSparseGpt ? names : std::set<std::string>());
  const auto total = static_cast<double>(options_.sequences.size());
  double done = 0;
  for (const auto& sequence : options_.sequences) {
    model.Run(sequence);
    Report(++done / total);
  }
  ++phase_;
}

void CompressionRun::UseStatistics() {
  for (const LayerInput& input : inputs_.inputs) {
    const InputStatistics& statistics = observer_.statistics().at(input.prefixes[0]);
    if (options_.smooth > 0 && !input.norm.empty()) {
      Smooth(source_, input, inputs_.norm_offset, statistics.largest, options_.smooth, stream_.threads(), smoothing_);
    }
    if (options_.pruning != PruningMethod::kWanda) continue;
    std::vector<float> norms;
    for (const double square : statistics.squares) norms.push_back(static_cast<float>(std::sqrt(square)));
    for (const std::string& prefix : input.prefixes) input_norms_[prefix] = norms;
  }
}

void CompressionRun::Prune(const Pass& pass, CheckpointWriter& writer) {
  double done = 0;
  for (const LayerInput& input : pass) {
    const HessianFactor factor(stream_, observer_.TakeHessian(input.prefixes[0]), input.prefixes[0], cancelled_);
    for (const PlannedMatrix& matrix : plan_.matrices()) {
      const auto& names = input.prefixes;
      const bool shares = std::find(names.begin(), names.end(), matrix.source->prefix) != names.end();
      if (shares && matrix.targeted) PruneMatrix(matrix, factor, writer);
    }
    Report(++done / static_cast<double>(pass.size()));
  }
  ++phase_;
}

void CompressionRun::PruneMatrix(const PlannedMatrix& matrix, const HessianFactor& factor, CheckpointWriter& writer) {
  const SourceMatrix& source = *matrix.source;
  const Tensor weights(DType::kFloat32, {source.rows, source.columns});
  float* const values = weights.view().Data<float>();
  stream_.threads().RunPieces(source.rows, 16, [&](int, int64_t begin, int64_t end) {
    source_.ReadRows(source, begin, end, values + begin * source.columns);
  });
  PruneSparseGpt(stream_, factor, weights, cancelled_);
  writer.WriteMatrix(matrix, {values, static_cast<size_t>(source.rows * source.columns)});
  written_.insert(source.prefix);
}

void CompressionRun::Write(CheckpointWriter& writer) {
  if (!passes_.empty()) {
    CalibrationModel model(source_, MaxTokens(options_), stream_, observer_, cancelled_);
    for (const Pass& pass : passes_) {
      Calibrate(pass, model);
      if (options_.pruning == PruningMethod::kSparseGpt) Prune(pass, writer);
    }
    UseStatistics();
  }
  const auto total = static_cast<double>(source_.matrices().size());
  double done = 0;
  for (const PlannedMatrix& matrix : plan_.matrices()) {
    if (written_.count(matrix.source->prefix) == 0) writer.WriteMatrix(matrix, ChangeOf(matrix));
    Report(++done / total);
  }
  writer.WriteOthers(smoothing_.norms);
}

CheckpointWriter::ChangeRows CompressionRun::ChangeOf(const PlannedMatrix& matrix) const {
  const std::string& prefix = matrix.source->prefix;
  const auto scales = smoothing_.column_scales.find(prefix);
  const bool scaled = scales != smoothing_.column_scales.end();
  const bool pruned = matrix.targeted && options_.pruning != PruningMethod::kNone;
  if (!scaled && !pruned) return nullptr;
  const auto norms = input_norms_.find(prefix);
  HEDDLE_CHECK(options_.pruning != PruningMethod::kWanda || !pruned || norms != input_norms_.end(), prefix);
  return [=, this, columns = matrix.source->columns](std::span<float> rows) {
    if (scaled) MultiplyColumns(rows, scales->second);
    if (pruned) PruneRows(rows, columns, norms != input_norms_.end() ? &norms->second : nullptr);
  };
}

}  // namespace heddle
