#include "loader/quantized_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/quote.h"
#include "loader/checkpoint_files.h"
#include "loader/file_tensor.h"
#include "loader/packed_int8_tensor.h"
#include "loader/sparse_24_tensor.h"

namespace heddle {
namespace {

constexpr std::string_view kWeight = ".weight";

[[noreturn]] void Throw(const LocatedTensor& located, const std::string& reason) {
  throw Error(ErrorCode::kModelFormat, located.file->path() + ": tensor " + Quote(located.entry->name) + " " + reason);
}

std::vector<char> ReadAll(const LocatedTensor& located) {
  std::vector<char> bytes(static_cast<size_t>(located.entry->end - located.entry->begin));
  located.file->Read(*located.entry, 0, bytes.size(), bytes.data());
  return bytes;
}

// Of a float dtype, widened.
std::vector<float> ReadFloats(const LocatedTensor& located) {
  const std::vector<char> bytes = ReadAll(located);
  const DType dtype = DTypeOf(*located.entry);
  const auto count = static_cast<int64_t>(bytes.size() / DTypeSize(dtype));
  const Tensor aligned(dtype, {count});
  std::memcpy(aligned.view().data, bytes.data(), bytes.size());
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = LoadFloat(dtype, aligned.view().data, i);
  return values;
}

std::string NumberToString(float number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", static_cast<double>(number));
  return text;
}

class QuantizedCheckpoint : public WeightSource {
 public:
  QuantizedCheckpoint(const std::string& folder, StoredQuantization stored)
      : files_(folder), stored_(std::move(stored)) {}

  std::unique_ptr<StoredTensor> Get(const std::string& name, const Shape& shape) override {
    if (shape.rank() != 2 || !name.ends_with(kWeight)) {
      return std::make_unique<FileTensor>(files_.Get(name, {{shape}, kFloatDTypes}), shape);
    }
    const std::string module = name.substr(0, name.size() - kWeight.size());
    const bool is_int8 = stored_.IsQuantized(module);
    if (stored_.IsSparse(module)) return GetSparse(module, shape, is_int8);
    if (is_int8) return GetInt8(module, shape);
    return std::make_unique<FileTensor>(GetElements(module, "weight", {{shape}, kFloatDTypes, Because(false)}), shape);
  }

  bool Has(const std::string& name) const override {
    if (files_.Find(name) != nullptr) return true;
    if (!name.ends_with(kWeight)) return false;
    const std::string module = name.substr(0, name.size() - kWeight.size());
    return files_.Find(module + ".compressed") != nullptr || files_.Find(module + ".weight_packed") != nullptr;
  }

  std::vector<std::string> Unused() const override { return files_.Unused(); }

 private:
  std::string Because(bool is_int8) const {
    return ", as " + stored_.key + (is_int8 ? " has it in int8" : " does not have it in int8");
  }

  // The tensor that holds a matrix's elements. Where it is missing, another way to hold them may be there.
  const LocatedTensor& GetElements(const std::string& module, const std::string& suffix, TensorForm form) const {
    const std::string name = module + "." + suffix;
    for (const char* other : {".weight", ".weight_packed", ".compressed"}) {
      if (files_.Find(name) == nullptr && files_.Find(module + other) != nullptr) {
        form.reason += ", found " + Quote(module + other);
      }
    }
    return files_.Get(name, form);
  }

  std::unique_ptr<StoredTensor> GetInt8(const std::string& module, const Shape& shape) const {
    const std::string reason = Because(true);
    if (stored_.layout != Int8Layout::kPacked) {
      const LocatedTensor& elements = GetElements(module, "weight", {{shape}, {"I8"}, reason});
      return std::make_unique<FileTensor>(elements, shape, GetScales(module, shape[0]));
    }
    const Shape packed{shape[0], PackedInt8Tensor::RowBytes(shape[1]) / 4};
    const LocatedTensor& elements = GetElements(module, "weight_packed", {{packed}, {"I32"}, reason});
    CheckStoredShape(module + ".weight_shape", {{Shape{2}}, {"I64", "I32"}, reason}, shape);
    return std::make_unique<PackedInt8Tensor>(elements, shape, GetScales(module, shape[0]));
  }

  std::unique_ptr<StoredTensor> GetSparse(const std::string& module, const Shape& shape, bool is_int8) const {
    const std::string reason =
        ", as " + stored_.key + ".sparsity_config has it 2:4 sparse" + (is_int8 ? " in int8" : "");
    if (shape[1] % 4 != 0) {
      throw Error(ErrorCode::kModelFormat, "matrix " + Quote(module + std::string(kWeight)) + " " + shape.ToString() +
                                               " must have a multiple of four columns" + reason);
    }
    const auto dtypes = is_int8 ? std::vector<std::string_view>{"I8"} : kFloatDTypes;
    const LocatedTensor& elements =
        GetElements(module, "compressed", {{Shape{shape[0], shape[1] / 2}}, dtypes, reason});
    const LocatedTensor& bitmask =
        files_.Get(module + ".bitmask", {{Shape{shape[0], (shape[1] + 7) / 8}}, {"U8"}, reason});
    CheckStoredShape(module + ".shape", {{Shape{2, 1}, Shape{2}}, {"I64", "I32"}, reason}, shape);
    return std::make_unique<Sparse24Tensor>(elements, bitmask, shape,
                                            is_int8 ? GetScales(module, shape[0]) : std::vector<float>());
  }

  void CheckStoredShape(const std::string& name, const TensorForm& form, const Shape& shape) const {
    const LocatedTensor& located = files_.Get(name, form);
    const std::vector<char> bytes = ReadAll(located);
    Shape found;
    if (located.entry->dtype == "I32") {
      int32_t sizes[2];
      std::memcpy(sizes, bytes.data(), sizeof(sizes));
      found = {sizes[0], sizes[1]};
    } else {
      int64_t sizes[2];
      std::memcpy(sizes, bytes.data(), sizeof(sizes));
      found = {sizes[0], sizes[1]};
    }
    if (found != shape) Throw(located, "must hold " + shape.ToString() + ", found " + found.ToString());
  }

  std::vector<float> GetScales(const std::string& module, int64_t rows) const {
    const std::string reason = Because(true);
    if (stored_.layout == Int8Layout::kBitsAndBytes) {
      CheckRowMajor(module + ".weight_format");
      return ReadScales(files_.Get(module + ".SCB", {{Shape{rows}}, kFloatDTypes, reason}), 127.0f);
    }
    CheckNoZeroPoint(module + ".weight_zero_point", rows);
    const std::string name = module + ".weight_scale";
    if (!stored_.tensor_scales) {
      return ReadScales(files_.Get(name, {{Shape{rows, 1}, Shape{rows}}, kFloatDTypes, reason}), 1.0f);
    }
    const LocatedTensor& located = files_.Get(name, {{Shape{1}, Shape{}, Shape{1, 1}}, kFloatDTypes, reason});
    return std::vector<float>(static_cast<size_t>(rows), ReadScales(located, 1.0f)[0]);
  }

  static std::vector<float> ReadScales(const LocatedTensor& located, float divisor) {
    std::vector<float> scales = ReadFloats(located);
    for (size_t row = 0; row < scales.size(); ++row) {
      const float stored = std::exchange(scales[row], scales[row] / divisor);
      if (std::isfinite(scales[row]) && scales[row] > 0) continue;
      Throw(located, "row " + std::to_string(row) + " must be finite and above zero, found " + NumberToString(stored));
    }
    return scales;
  }

  // Releases that wrote other orders also wrote which.
  void CheckRowMajor(const std::string& name) const {
    if (files_.Find(name) == nullptr) return;
    const LocatedTensor& located = files_.Get(name, {{Shape{}, Shape{1}}, {"U8"}});
    const auto format = static_cast<uint8_t>(ReadAll(located)[0]);
    if (format != 0) Throw(located, "must be 0, which is row-major, found " + std::to_string(format));
  }

  // Early releases wrote the zeros of a symmetric matrix.
  void CheckNoZeroPoint(const std::string& name, int64_t rows) const {
    if (files_.Find(name) == nullptr) return;
    const LocatedTensor& located =
        files_.Get(name, {{Shape{rows, 1}, Shape{rows}, Shape{1}, Shape{}}, {"I8", "U8", "I32", "I64"}});
    const std::vector<char> bytes = ReadAll(located);
    if (std::any_of(bytes.begin(), bytes.end(), [](char byte) { return byte != 0; })) {
      Throw(located, "must be all zero, as " + stored_.key + " has it symmetric");
    }
  }

  CheckpointFiles files_;
  StoredQuantization stored_;
};

}  // namespace

std::unique_ptr<WeightSource> OpenQuantizedCheckpoint(const std::string& folder, const StoredQuantization& stored) {
  if (stored.key.empty()) return OpenCheckpoint(folder);
  return std::make_unique<QuantizedCheckpoint>(folder, stored);
}

}  // namespace heddle
