#include "compress/source_checkpoint.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/file.h"
#include "base/quote.h"
#include "compress/rows.h"
#include "loader/weight_source.h"

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
bool IsLinear(const std::string& prefix) {
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
  CheckConfig();
  OpenCheckpoint(folder);  // that index and shards agree
  has_index_ = !PathExists(folder + "/model.safetensors");
  for (std::string& name : ShardNames(folder, has_index_)) {
    auto file = std::make_unique<SafetensorsFile>(folder + "/" + name);
    shards_.push_back({std::move(name), std::move(file), {}});
    FindMatrices(shards_.size() - 1);
  }
}

void SourceCheckpoint::CheckConfig() {
  const Json* quantization = config_.Find("quantization_config");
  if (quantization == nullptr) quantization = config_.Find("compression_config");
  if (quantization == nullptr || quantization->IsNull()) return;
  const Json* method = quantization->Find("quant_method");
  const std::string name = method != nullptr && method->IsString() ? method->AsString() : "unnamed";
  const Json* groups = quantization->Find("config_groups");
  const Json* sparsity = quantization->Find("sparsity_config");
  const Json* format = sparsity != nullptr ? sparsity->Find("format") : nullptr;
  is_sparse_ = name == "compressed-tensors" && (groups == nullptr || groups->IsNull()) && format != nullptr &&
               format->IsString() && format->AsString() == "sparse-24-bitmask";
  if (is_sparse_) return;
  throw Error(ErrorCode::kInvalidArgument,
              "model must be a checkpoint that is not quantised, but its config.json has a quantization_config of " +
                  Quote(name));
}

void SourceCheckpoint::FindMatrices(size_t shard) {
  const SafetensorsFile& file = *shards_[shard].file;
  std::set<std::string> sparse;  // prefixes
  const auto find = [&](const std::string& name) -> const SafetensorsTensor* {
    const auto found = std::find_if(file.tensors().begin(), file.tensors().end(),
                                    [&](const SafetensorsTensor& tensor) { return tensor.name == name; });
    return found != file.tensors().end() ? &*found : nullptr;
  };
  for (const SafetensorsTensor& tensor : file.tensors()) {
    const std::string prefix = is_sparse_ ? PrefixOf(tensor.name, ".bitmask") : "";
    if (prefix.empty()) continue;
    const SafetensorsTensor* values = find(prefix + ".compressed");
    const std::optional<DType> dtype = values != nullptr ? FloatDType(values->dtype) : std::nullopt;
    if (!dtype || values->shape.size() != 2 || tensor.dtype != "U8" ||
        tensor.shape != std::vector<int64_t>{values->shape[0], MaskBytes(2 * values->shape[1])}) {
      throw Error(ErrorCode::kModelFormat, file.path() + ": " + Quote(tensor.name) + " and " +
                                               Quote(prefix + ".compressed") + " do not make up a 2:4 matrix");
    }
    sparse.insert(prefix);
    matrices_.push_back({prefix, values->shape[0], 2 * values->shape[1], *dtype, shard, true, values, &tensor});
  }
  for (const SafetensorsTensor& tensor : file.tensors()) {
    const std::string prefix = PrefixOf(tensor.name, ".weight");
    const std::optional<DType> dtype = FloatDType(tensor.dtype);
    if (!prefix.empty() && dtype && tensor.shape.size() == 2 && IsLinear(prefix)) {
      matrices_.push_back({prefix, tensor.shape[0], tensor.shape[1], *dtype, shard, false, &tensor, nullptr});
      continue;
    }
    const std::string owner = tensor.name.substr(0, tensor.name.rfind('.'));
    const std::string part = tensor.name.substr(std::min(owner.size() + 1, tensor.name.size()));
    if (sparse.count(owner) > 0 && (part == "compressed" || part == "bitmask" || part == "shape")) continue;
    shards_[shard].others.push_back(&tensor);
  }
}

void SourceCheckpoint::ReadRows(const SourceMatrix& matrix, int64_t begin, int64_t end, float* out) const {
  const SafetensorsFile& file = *shards_[matrix.shard].file;
  const int64_t stored_columns = matrix.sparse ? matrix.columns / 2 : matrix.columns;
  const auto row_bytes = static_cast<uint64_t>(stored_columns) * DTypeSize(matrix.dtype);
  const auto count = static_cast<uint64_t>(end - begin);
  std::vector<char> stored(count * row_bytes);
  file.Read(*matrix.values, static_cast<uint64_t>(begin) * row_bytes, stored.size(), stored.data());
  if (!matrix.sparse) {
    const int64_t elements = (end - begin) * matrix.columns;
    for (int64_t i = 0; i < elements; ++i) out[i] = LoadFloat(matrix.dtype, stored.data(), i);
    return;
  }
  const int64_t mask_bytes = MaskBytes(matrix.columns);
  std::vector<uint8_t> masks(count * static_cast<uint64_t>(mask_bytes));
  file.Read(*matrix.bitmask, static_cast<uint64_t>(begin * mask_bytes), masks.size(), masks.data());
  for (int64_t row = 0; row < end - begin; ++row) {
    const uint8_t* mask = masks.data() + row * mask_bytes;
    int64_t at = row * stored_columns;
    for (int64_t column = 0; column < matrix.columns; ++column) {
      const bool kept = IsKept(mask, column);
      if (kept && at == (row + 1) * stored_columns) at = -1;
      if (at < 0) break;
      out[row * matrix.columns + column] = kept ? LoadFloat(matrix.dtype, stored.data(), at++) : 0.0f;
    }
    if (at == (row + 1) * stored_columns) continue;
    throw Error(ErrorCode::kModelFormat, file.path() + ": " + Quote(matrix.prefix + ".bitmask") +
                                             " does not set half of its bits in row " + std::to_string(begin + row));
  }
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
