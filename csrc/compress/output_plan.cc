#include "compress/output_plan.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "base/quote.h"
#include "compress/json_text.h"
#include "compress/quantization_config.h"
#include "compress/rows.h"

namespace heddle {
namespace {

constexpr const char* kHead = "lm_head";

// Whether `entry` is the name of a layer, or the last parts of it.
bool Names(const std::string& entry, const std::string& layer) {
  return layer == entry || layer.ends_with("." + entry);
}

bool IsTargeted(const std::string& layer, const std::vector<std::string>& ignore) {
  return std::none_of(ignore.begin(), ignore.end(), [&](const std::string& entry) { return Names(entry, layer); });
}

void CheckIgnore(const std::vector<std::string>& ignore, const std::vector<SourceMatrix>& matrices) {
  for (const std::string& entry : ignore) {
    const bool known = entry == kHead || std::any_of(matrices.begin(), matrices.end(),
                                                     [&](const auto& matrix) { return Names(entry, matrix.prefix); });
    if (known) continue;
    throw Error(ErrorCode::kInvalidArgument, "ignore must name linear layers of the model, such as \"" +
                                                 matrices[0].prefix + "\" or the end of it, received " + Quote(entry));
  }
}

// The layer of a tensor that other tools take for a linear one, and that stays as it is: a router, for one. Empty for
// another tensor, the head among them, which is always named.
std::string UntouchedLayer(const SafetensorsTensor& tensor) {
  constexpr std::string_view kWeight = ".weight";
  if (tensor.shape.size() != 2 || !tensor.name.ends_with(kWeight)) return "";
  const std::string layer = tensor.name.substr(0, tensor.name.size() - kWeight.size());
  return Names("embed_tokens", layer) || Names(kHead, layer) ? "" : layer;
}

// Reads until it is known: of a dense matrix little.
bool IsPruned(const SourceCheckpoint& source, const SourceMatrix& matrix) {
  constexpr int64_t kRowsAtOnce = 16;
  if (matrix.sparse) return true;
  if (matrix.columns % 4 != 0) return false;
  std::vector<float> rows(static_cast<size_t>(kRowsAtOnce * matrix.columns));
  for (int64_t begin = 0; begin < matrix.rows; begin += kRowsAtOnce) {
    const int64_t end = std::min(begin + kRowsAtOnce, matrix.rows);
    source.ReadRows(matrix, begin, end, rows.data());
    if (!IsTwoOfFour({rows.data(), static_cast<size_t>((end - begin) * matrix.columns)})) return false;
  }
  return true;
}

}  // namespace

OutputPlan::OutputPlan(const SourceCheckpoint& source, const CompressionOptions& options)
    : source_(source), scheme_(options.scheme), pruned_(options.pruning != PruningMethod::kNone) {
  if (source.matrices().empty()) {
    throw Error(ErrorCode::kUnsupportedModel, source.folder() + ": holds no linear layers that are known here");
  }
  CheckIgnore(options.ignore, source.matrices());
  for (const SourceMatrix& matrix : source.matrices()) {
    matrices_.push_back({&matrix, MatrixForm::kDense, IsTargeted(matrix.prefix, options.ignore), 0});
    if (!pruned_ || !matrices_.back().targeted || matrix.columns % 4 == 0) continue;
    throw Error(ErrorCode::kInvalidArgument, "model must have layers of a multiple of 4 inputs to be pruned 2:4, but " +
                                                 matrix.prefix + " has " + std::to_string(matrix.columns) +
                                                 "; ignore can leave it out");
  }
  if (std::none_of(matrices_.begin(), matrices_.end(), [](const auto& matrix) { return matrix.targeted; })) {
    throw Error(ErrorCode::kInvalidArgument, "ignore must leave some linear layers, but names them all");
  }
  if (pruned_ && source.stored().sparse_24) {
    throw Error(ErrorCode::kInvalidArgument,
                "model must be a checkpoint that is not pruned, but its config.json says 2:4");
  }
  ChooseForms(options);

  for (const SourceCheckpoint::Shard& shard : source.shards()) shards_.push_back({{}, shard.others});
  for (PlannedMatrix& matrix : matrices_) {
    std::vector<NewTensor>& tensors = shards_[matrix.source->shard].tensors;
    matrix.first = tensors.size();
    for (NewTensor& tensor : matrix.Output().Tensors()) tensors.push_back(std::move(tensor));
  }
  for (PlannedShard& shard : shards_) {
    for (const SafetensorsTensor* other : shard.others) {
      shard.tensors.push_back({other->name, std::string(other->dtype), other->shape});
    }
  }
}

void OutputPlan::ChooseForms(const CompressionOptions& options) {
  bool any_sparse = false;
  for (PlannedMatrix& matrix : matrices_) {
    const bool quantised = matrix.targeted && scheme_ != CompressionScheme::kNone;
    const bool sparse = quantised ? (pruned_ || IsPruned(source_, *matrix.source))
                                  : (matrix.source->sparse || (pruned_ && matrix.targeted && !options.dense));
    any_sparse = any_sparse || sparse;
    matrix.form = quantised ? (sparse ? MatrixForm::kSparseInt8 : MatrixForm::kInt8)
                            : (sparse ? MatrixForm::kSparse : MatrixForm::kDense);
  }
  // Weights without activations are packed where all of them are dense: what is packed cannot be 2:4, and a checkpoint
  // has one format.
  if (scheme_ != CompressionScheme::kInt8 || any_sparse) return;
  for (PlannedMatrix& matrix : matrices_) {
    if (matrix.form == MatrixForm::kInt8) matrix.form = MatrixForm::kPackedInt8;
  }
}

uint64_t OutputPlan::output_bytes() const {
  uint64_t bytes = 0;
  for (const PlannedShard& shard : shards_) bytes += SafetensorsWriter::FileBytes(shard.tensors);
  return bytes;
}

std::string OutputPlan::Config() const {
  QuantizationSummary summary;
  summary.scheme = scheme_;
  summary.format = "int-quantized";
  int64_t num_zeros = 0;
  int64_t num_weights = 0;
  for (const PlannedMatrix& matrix : matrices_) {
    const int64_t size = matrix.source->rows * matrix.source->columns;
    num_weights += size;
    if (IsSparse(matrix.form)) num_zeros += size / 2;
    if (matrix.form == MatrixForm::kPackedInt8) summary.format = "pack-quantized";
    if (!IsInt8(matrix.form)) summary.not_quantised.push_back(matrix.source->prefix);
    if (!IsSparse(matrix.form)) summary.not_sparse.push_back(matrix.source->prefix);
  }
  for (const PlannedShard& shard : shards_) {
    for (const SafetensorsTensor* other : shard.others) {
      int64_t size = 1;
      for (const int64_t dim : other->shape) size *= dim;
      num_weights += size;
      const std::string layer = UntouchedLayer(*other);
      if (layer.empty()) continue;
      summary.not_quantised.push_back(layer);
      summary.not_sparse.push_back(layer);
    }
  }
  summary.sparse = num_zeros > 0;
  summary.sparsity = static_cast<double>(num_zeros) / static_cast<double>(num_weights);
  summary.not_quantised.emplace_back(kHead);
  summary.not_sparse.emplace_back(kHead);
  if (scheme_ == CompressionScheme::kNone && !summary.sparse) return source_.config_text();
  // A config.json with both of the keys that there are would be refused.
  const std::string& stored = source_.stored().key;
  const std::string key = stored.empty() ? "quantization_config" : stored;
  return WithMember(source_.config_text(), key, QuantizationConfig(summary), "config.json");
}

std::string OutputPlan::Index() const {
  std::map<std::string, std::string> shard_of;
  uint64_t bytes = 0;
  for (size_t s = 0; s < shards_.size(); ++s) {
    for (const NewTensor& tensor : shards_[s].tensors) {
      shard_of[tensor.name] = source_.shards()[s].name;
      bytes += tensor.SizeBytes();
    }
  }
  std::string text =
      "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(bytes) + "\n  },\n  \"weight_map\": {";
  const char* separator = "\n";
  for (const auto& [tensor, shard] : shard_of) {
    text += separator + ("    " + JsonString(tensor)) + ": " + JsonString(shard);
    separator = ",\n";
  }
  return text + "\n  }\n}\n";
}

}  // namespace heddle
