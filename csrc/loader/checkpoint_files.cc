#include "loader/checkpoint_files.h"

#include <dirent.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/quote.h"

namespace heddle {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

[[noreturn]] void Throw(const std::string& where, const std::string& reason) {
  throw Error(ErrorCode::kModelFormat, where + ": " + reason);
}

// -- The shard index --

struct ShardIndex {
  struct Mapping {
    std::string tensor;
    std::string shard;
    bool found = false;
  };
  std::vector<Mapping> mappings;    // sorted by tensor, no tensor twice
  std::vector<std::string> shards;  // sorted
};

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

ShardIndex ReadIndex(const std::string& path) {
  const Json index = Json::ParseFile(path);
  const Json* weight_map = index.Find("weight_map");
  if (weight_map == nullptr || !weight_map->IsObject() || weight_map->AsObject().empty()) {
    Throw(path, "must be an object with a weight_map that maps at least one tensor to its file");
  }
  ShardIndex result;
  for (const auto& [tensor, shard] : weight_map->AsObject()) {
    if (!shard.IsString() || !IsPlainFileName(shard.AsString())) {
      Throw(path, "weight_map[" + Quote(tensor) + "] must be the plain name of a file beside it" +
                      (shard.IsString() ? ", received " + Quote(shard.AsString()) : ""));
    }
    result.mappings.push_back({tensor, shard.AsString()});
    result.shards.push_back(shard.AsString());
  }
  std::sort(result.mappings.begin(), result.mappings.end(),
            [](const auto& a, const auto& b) { return a.tensor < b.tensor; });
  std::sort(result.shards.begin(), result.shards.end());
  result.shards.erase(std::unique(result.shards.begin(), result.shards.end()), result.shards.end());
  return result;
}

// Checks one shard's tensors against the index and appends them.
void AddShard(const std::string& index_path, ShardIndex& index, const std::string& shard,
              const std::shared_ptr<const SafetensorsFile>& file, std::vector<LocatedTensor>& tensors) {
  for (const SafetensorsTensor& entry : file->tensors()) {
    const auto mapping = std::lower_bound(index.mappings.begin(), index.mappings.end(), entry.name,
                                          [](const auto& a, const std::string& name) { return a.tensor < name; });
    if (mapping == index.mappings.end() || mapping->tensor != entry.name) {
      Throw(index_path, "does not map tensor " + Quote(entry.name) + ", which " + shard + " holds");
    }
    if (mapping->shard != shard) {
      Throw(index_path,
            "maps tensor " + Quote(entry.name) + " to " + Quote(mapping->shard) + ", but " + shard + " holds it");
    }
    mapping->found = true;
    tensors.push_back({&entry, file});
  }
}

std::vector<LocatedTensor> OpenShards(const std::string& folder) {
  const std::filesystem::path base(folder);
  const std::string index_path = base / kIndexFile;
  ShardIndex index = ReadIndex(index_path);
  std::vector<LocatedTensor> tensors;
  tensors.reserve(index.mappings.size());
  for (const std::string& shard : index.shards) {
    const std::string path = base / shard;
    if (!PathExists(path)) Throw(path, std::string("missing, though ") + kIndexFile + " names it");
    AddShard(index_path, index, shard, std::make_shared<SafetensorsFile>(path), tensors);
  }
  for (const ShardIndex::Mapping& mapping : index.mappings) {
    if (mapping.found) continue;
    Throw(index_path,
          "maps tensor " + Quote(mapping.tensor) + " to " + Quote(mapping.shard) + ", which does not hold it");
  }
  return tensors;
}

// -- Finding the files --

bool HasSuffix(const std::string& name, const std::string& suffix) {
  return name.size() >= suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// The name of some file with weights in a format that we do not read; empty when there is none.
std::string FindForeignWeights(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(folder.c_str()), closedir);
  std::string found;
  while (directory != nullptr) {
    const dirent* file = readdir(directory.get());
    if (file == nullptr) break;
    const std::string name = file->d_name;
    for (const char* suffix : {".bin", ".gguf", ".pt", ".pth"}) {
      if (HasSuffix(name, suffix) && (found.empty() || name < found)) found = name;
    }
  }
  return found;
}

[[noreturn]] void ThrowNoWeights(const std::string& folder) {
  std::string reason = std::string("holds neither ") + kSingleFile + " nor " + kIndexFile;
  const std::string foreign = FindForeignWeights(folder);
  if (!foreign.empty()) reason += "; it has " + Quote(foreign) + ", but only safetensors files are read";
  Throw(folder, PathExists(folder) ? reason : "no such folder");
}

std::vector<LocatedTensor> OpenFiles(const std::string& folder) {
  const std::string single = folder + "/" + kSingleFile;
  if (PathExists(single)) {
    const auto file = std::make_shared<SafetensorsFile>(single);
    std::vector<LocatedTensor> tensors;
    tensors.reserve(file->tensors().size());
    for (const SafetensorsTensor& entry : file->tensors()) tensors.push_back({&entry, file});
    return tensors;
  }
  if (PathExists(folder + "/" + kIndexFile)) return OpenShards(folder);
  ThrowNoWeights(folder);
}

// -- Messages --

std::string ShapeToString(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

bool SameShape(const std::vector<int64_t>& stored, const Shape& shape) {
  if (stored.size() != static_cast<size_t>(shape.rank())) return false;
  for (int i = 0; i < shape.rank(); ++i) {
    if (stored[static_cast<size_t>(i)] != shape[i]) return false;
  }
  return true;
}

// "[3, 1] or [3]", "F32, BF16 or F16".
template <typename Items, typename ToString>
std::string ListAlternatives(const Items& items, const ToString& to_string) {
  std::string text;
  size_t left = items.size();
  for (const auto& item : items) {
    text += to_string(item);
    --left;
    if (left > 0) text += left == 1 ? " or " : ", ";
  }
  return text;
}

}  // namespace

CheckpointFiles::CheckpointFiles(std::string folder)
    : folder_(std::move(folder)),
      tensors_(OpenFiles(folder_)),
      used_(std::make_unique<std::atomic<bool>[]>(tensors_.size())) {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const LocatedTensor& a, const LocatedTensor& b) { return a.entry->name < b.entry->name; });
}

// Binary search: unlike hashing, no choice of names slows it down.
const LocatedTensor* CheckpointFiles::Find(const std::string& name) const {
  const auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                      [](const LocatedTensor& a, const std::string& b) { return a.entry->name < b; });
  return found == tensors_.end() || found->entry->name != name ? nullptr : &*found;
}

const LocatedTensor& CheckpointFiles::Get(const std::string& name, const TensorForm& form) const {
  const auto shapes = [&] {
    return ListAlternatives(form.shapes, [](const Shape& shape) { return shape.ToString(); });
  };
  const LocatedTensor* tensor = Find(name);
  if (tensor == nullptr) {
    Throw(folder_, "tensor " + Quote(name) + " is missing, expected with shape " + shapes() + form.reason);
  }
  used_[static_cast<size_t>(tensor - tensors_.data())].store(true, std::memory_order_relaxed);
  const SafetensorsTensor& entry = *tensor->entry;
  const auto must_have = [&](const std::string& expected, const std::string& found) {
    Throw(tensor->file->path(), "tensor " + Quote(name) + " must have " + expected + form.reason + ", found " + found);
  };
  if (std::none_of(form.shapes.begin(), form.shapes.end(),
                   [&](const Shape& shape) { return SameShape(entry.shape, shape); })) {
    must_have("shape " + shapes(), ShapeToString(entry.shape));
  }
  if (std::find(form.dtypes.begin(), form.dtypes.end(), entry.dtype) == form.dtypes.end()) {
    must_have("dtype " + ListAlternatives(form.dtypes, [](std::string_view dtype) { return std::string(dtype); }),
              std::string(entry.dtype));
  }
  return *tensor;
}

std::vector<std::string> CheckpointFiles::Unused() const {
  std::vector<std::string> names;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!used_[i].load(std::memory_order_relaxed)) names.push_back(tensors_[i].entry->name);
  }
  return names;
}

}  // namespace heddle
