#include "compress/source_checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "base/quote.h"
#include "loader/quantized_checkpoint.h"

namespace heddle {
namespace {

constexpr size_t kMaxConfigBytes = size_t{16} << 20;

std::optional<DType> FloatDType(std::string_view name) {
  if (name == "F32") return DType::kFloat32;
  if (name == "BF16") return DType::kBFloat16;
  if (name == "F16") return DType::kFloat16;
  return std::nullopt;
}

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.weight"; empty for another ending.
std::string PrefixOf(const std::string& name, std::string_view ending) {
  if (name.size() <= ending.size() || !name.ends_with(ending)) return "";
  return name.substr(0, name.size() - ending.size());
}

// Linear layers of a decoder are its matrices but for embeddings and head, which stand outside its layers; the router
// of experts is one that nobody makes smaller.
bool IsLayerMatrix(const std::string& prefix) {
  return prefix.find(".layers.") != std::string::npos && !prefix.ends_with(".gate");
}

std::vector<std::string> ShardNames(const std::string& folder, bool has_index) {
  if (!has_index) return {"model.safetensors"};
  const Json index = Json::ParseFile(folder + "/model.safetensors.index.json");
  std::set<std::string> names;
  for (const auto& [tensor, shard] : index.Find("weight_map")->AsObject()) names.insert(shard.AsString());
  return {names.begin(), names.end()};
}

}  // namespace

SourceCheckpoint::SourceCheckpoint(const std::string& folder) : folder_(folder) {
  const std::string path = folder + "/config.json";
  if (!PathExists(path)) {
    throw Error(ErrorCode::kModelFormat, "model must be a folder with a config.json, received " + folder);
  }
  config_text_ = ReadFile(path, kMaxConfigBytes);
  config_ = Json::Parse(config_text_, "config.json");
  stored_ = ParseStoredQuantization(config_);
  if (stored_.scheme != QuantizationScheme::kNone) {
    throw Error(ErrorCode::kInvalidArgument,
                "model must be a checkpoint that is not quantised, but its config.json has a " + stored_.key);
  }
  weights_ = OpenQuantizedCheckpoint(folder, stored_);
  has_index_ = !PathExists(folder + "/model.safetensors");
  for (std::string& name : ShardNames(folder, has_index_)) {
    auto file = std::make_unique<SafetensorsFile>(std::filesystem::path(folder) / name);
    shards_.push_back({std::move(name), std::move(file), {}});
  }
  // The parts of one matrix may stand in several shards.
  std::set<std::string> parts;
  for (size_t shard = 0; shard < shards_.size(); ++shard) FindMatrices(shard, parts);
  for (Shard& shard : shards_) {
    for (const SafetensorsTensor& tensor : shard.file->tensors()) {
      if (parts.count(tensor.name) == 0) shard.others.push_back(&tensor);
    }
  }
}

void SourceCheckpoint::FindMatrices(size_t shard, std::set<std::string>& parts) {
  for (const SafetensorsTensor& tensor : shards_[shard].file->tensors()) {
    const bool is_values = tensor.name.ends_with(".compressed");
    const std::string prefix = PrefixOf(tensor.name, is_values ? ".compressed" : ".weight");
    const std::optional<DType> dtype = FloatDType(tensor.dtype);
    const bool is_sparse = is_values && stored_.IsSparse(prefix);
    if (prefix.empty() || is_values != is_sparse || !dtype || tensor.shape.size() != 2 || !IsLayerMatrix(prefix))
      continue;
    // One without rows or columns has nothing to make smaller.
    if (tensor.shape[0] == 0 || tensor.shape[1] == 0) continue;
    const int64_t columns = is_sparse ? 2 * tensor.shape[1] : tensor.shape[1];
    std::shared_ptr<const StoredTensor> stored = weights_->Get(prefix + ".weight", {tensor.shape[0], columns});
    matrices_.push_back({prefix, tensor.shape[0], columns, *dtype, shard, is_sparse, std::move(stored)});
    if (is_sparse) {
      for (const char* part : {".compressed", ".bitmask", ".shape"}) parts.insert(prefix + part);
    } else {
      parts.insert(tensor.name);
    }
  }
}

void SourceCheckpoint::ReadRows(const SourceMatrix& matrix, int64_t begin, int64_t end, float* out) const {
  const Tensor rows(matrix.dtype, {end - begin, matrix.columns});
  matrix.stored->Read(begin, rows);
  const int64_t elements = (end - begin) * matrix.columns;
  for (int64_t i = 0; i < elements; ++i) out[i] = LoadFloat(matrix.dtype, rows.view().data, i);
}

int64_t SourceCheckpoint::size_bytes() const {
  uint64_t bytes = 0;
  for (const Shard& shard : shards_) {
    for (const SafetensorsTensor& tensor : shard.file->tensors()) bytes += tensor.end - tensor.begin;
  }
  return static_cast<int64_t>(bytes);
}

bool SourceCheckpoint::Has(const std::string& name) const {
  return std::any_of(shards_.begin(), shards_.end(), [&](const Shard& shard) {
    return std::any_of(shard.others.begin(), shard.others.end(),
                       [&](const auto* tensor) { return tensor->name == name; });
  });
}

SourceCheckpoint::Vector SourceCheckpoint::ReadVector(const std::string& name) const {
  for (size_t s = 0; s < shards_.size(); ++s) {
    for (const SafetensorsTensor* tensor : shards_[s].others) {
      const std::optional<DType> dtype = FloatDType(tensor->dtype);
      if (tensor->name != name || !dtype || tensor->shape.size() != 1) continue;
      Vector vector{s, *dtype, std::vector<float>(static_cast<size_t>(tensor->shape[0]))};
      std::vector<char> stored(tensor->end - tensor->begin);
      shards_[s].file->Read(*tensor, 0, stored.size(), stored.data());
      for (size_t i = 0; i < vector.values.size(); ++i) {
        vector.values[i] = LoadFloat(*dtype, stored.data(), static_cast<int64_t>(i));
      }
      return vector;
    }
  }
  throw Error(ErrorCode::kModelFormat, folder_ + ": tensor " + Quote(name) + " is missing");
}

}  // namespace heddle
