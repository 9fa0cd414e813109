#include "loader/safetensors_header.h"

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/json_reader.h"
#include "base/quote.h"

namespace heddle {
namespace {

constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxNameBytes = 512;
constexpr size_t kMaxRank = 8;
constexpr uint64_t kMaxDimension = uint64_t{1} << 40;

struct FileDType {
  std::string_view name;
  uint64_t size_bytes;
};

constexpr std::array<FileDType, 16> kFileDTypes = {{{"BOOL", 1},
                                                    {"U8", 1},
                                                    {"I8", 1},
                                                    {"F8_E5M2", 1},
                                                    {"F8_E4M3", 1},
                                                    {"F8_E8M0", 1},
                                                    {"I16", 2},
                                                    {"U16", 2},
                                                    {"F16", 2},
                                                    {"BF16", 2},
                                                    {"I32", 4},
                                                    {"U32", 4},
                                                    {"F32", 4},
                                                    {"F64", 8},
                                                    {"I64", 8},
                                                    {"U64", 8}}};

[[noreturn]] void Throw(const std::string& path, const std::string& reason) {
  throw Error(ErrorCode::kModelFormat, path + ": " + reason);
}

std::string RangeToString(uint64_t begin, uint64_t end) {
  std::string text = "[";
  return text.append(std::to_string(begin)).append(", ").append(std::to_string(end)).append("]");
}

class HeaderParser {
 public:
  HeaderParser(std::string_view header, const std::string& path, uint64_t data_bytes)
      : reader_(header, path + ": header"), path_(path), data_bytes_(data_bytes) {}

  SafetensorsHeader Parse() {
    std::string name;
    reader_.BeginObject();
    while (reader_.NextKey(&name)) {
      if (name == "__metadata__") {
        ReadMetadata();
      } else {
        if (tensors_.size() == kMaxTensors) reader_.Fail("more than " + std::to_string(kMaxTensors) + " tensors");
        tensors_.push_back(ReadTensor(std::move(name)));
      }
    }
    reader_.ExpectEnd();
    CheckNamesDiffer();
    CheckCoverage();
    return {std::move(tensors_), std::move(metadata_)};
  }

 private:
  [[noreturn]] void FailTensor(const std::string& name, const std::string& reason) const {
    Throw(path_, "tensor " + Quote(name) + " " + reason);
  }

  void ReadMetadata() {
    if (std::exchange(has_metadata_, true)) reader_.Fail("duplicate key \"__metadata__\"");
    std::string key;
    reader_.BeginObject();
    while (reader_.NextKey(&key)) {
      if (metadata_.size() == kMaxTensors) {
        reader_.Fail("more than " + std::to_string(kMaxTensors) + " keys of metadata");
      }
      const size_t offset = reader_.key_offset();
      const auto [entry, is_new] = metadata_.emplace(key, reader_.ReadString());
      if (!is_new) reader_.Fail("duplicate key " + Quote(key) + " in __metadata__", offset);
    }
  }

  SafetensorsTensor ReadTensor(std::string name) {
    if (name.empty() || name.size() > kMaxNameBytes || name.find('\0') != std::string::npos) {
      reader_.Fail("the name of a tensor must have 1 to " + std::to_string(kMaxNameBytes) +
                   " bytes and no NUL, received " + Quote(name));
    }
    SafetensorsTensor tensor;
    tensor.name = std::move(name);
    tensor.header_offset = reader_.key_offset();
    uint64_t element_bytes = 0;
    bool has_shape = false;
    bool has_offsets = false;
    std::string key;
    reader_.BeginObject();
    while (reader_.NextKey(&key)) {
      if (key == "dtype" && element_bytes == 0) {
        element_bytes = ReadDType(tensor);
      } else if (key == "shape" && !std::exchange(has_shape, true)) {
        ReadShape(tensor);
      } else if (key == "data_offsets" && !std::exchange(has_offsets, true)) {
        ReadOffsets(tensor);
      } else {
        const bool known = key == "dtype" || key == "shape" || key == "data_offsets";
        reader_.Fail((known ? "duplicate key " : "unknown key ") + Quote(key) + " in tensor " + Quote(tensor.name));
      }
    }
    if (element_bytes == 0 || !has_shape || !has_offsets) {
      FailTensor(tensor.name, "must have dtype, shape and data_offsets");
    }
    CheckSize(tensor, element_bytes);
    return tensor;
  }

  // Returns the bytes of an element.
  uint64_t ReadDType(SafetensorsTensor& tensor) {
    const std::string name = reader_.ReadString();
    for (const FileDType& dtype : kFileDTypes) {
      if (dtype.name != name) continue;
      tensor.dtype = dtype.name;
      return dtype.size_bytes;
    }
    FailTensor(tensor.name, "has the unknown dtype " + Quote(name));
  }

  uint64_t ReadUint64(const std::string& name, const char* what) {
    reader_.Peek();
    const size_t offset = reader_.offset();
    const std::optional<uint64_t> integer = reader_.ReadNumber().integer;
    if (!integer) {
      reader_.Fail(
          std::string(what) + " of tensor " + Quote(name) + " must hold unsigned 64-bit integers in plain digits",
          offset);
    }
    return *integer;
  }

  void ReadShape(SafetensorsTensor& tensor) {
    reader_.BeginArray();
    while (reader_.NextElement()) {
      const uint64_t dimension = ReadUint64(tensor.name, "the shape");
      if (dimension > kMaxDimension) {
        FailTensor(tensor.name, "has a dimension of " + std::to_string(dimension) + ", beyond 2^40");
      }
      if (tensor.shape.size() == kMaxRank) FailTensor(tensor.name, "has more than 8 dimensions");
      tensor.shape.push_back(static_cast<int64_t>(dimension));
    }
  }

  void ReadOffsets(SafetensorsTensor& tensor) {
    const std::string& name = tensor.name;
    std::vector<uint64_t> offsets;
    reader_.BeginArray();
    while (reader_.NextElement() && offsets.size() < 3) offsets.push_back(ReadUint64(name, "data_offsets"));
    if (offsets.size() != 2) FailTensor(name, "must have two data_offsets");
    tensor.begin = offsets[0];
    tensor.end = offsets[1];
  }

  void CheckSize(const SafetensorsTensor& tensor, uint64_t element_bytes) const {
    std::optional<uint64_t> bytes = 1;
    for (const int64_t dimension : tensor.shape) {
      if (bytes) bytes = CheckedMultiply(*bytes, static_cast<uint64_t>(dimension));
    }
    if (bytes) bytes = CheckedMultiply(*bytes, element_bytes);
    if (!bytes) FailTensor(tensor.name, "has a shape whose size overflows 64 bits");
    const std::string range = RangeToString(tensor.begin, tensor.end);
    if (tensor.begin > tensor.end) FailTensor(tensor.name, "has data_offsets " + range + " in the wrong order");
    if (tensor.end - tensor.begin != *bytes) {
      FailTensor(tensor.name, "needs " + std::to_string(*bytes) + " bytes, but its data_offsets are " + range);
    }
    if (tensor.end > data_bytes_) {
      FailTensor(tensor.name, "has data_offsets " + range + " beyond the " + std::to_string(data_bytes_) +
                                  " bytes of data in the file");
    }
  }

  std::vector<const SafetensorsTensor*> Pointers() const {
    std::vector<const SafetensorsTensor*> pointers;
    pointers.reserve(tensors_.size());
    for (const SafetensorsTensor& tensor : tensors_) pointers.push_back(&tensor);
    return pointers;
  }

  // By sorting, which no choice of names can slow down.
  void CheckNamesDiffer() const {
    std::vector<const SafetensorsTensor*> order = Pointers();
    std::sort(order.begin(), order.end(), [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
      return std::tie(a->name, a->header_offset) < std::tie(b->name, b->header_offset);
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const std::string& name = order[i]->name;
      if (name == order[i - 1]->name) reader_.Fail("duplicate key " + Quote(name), order[i]->header_offset);
    }
  }

  void CheckCoverage() const {
    std::vector<const SafetensorsTensor*> order = Pointers();
    std::sort(order.begin(), order.end(), [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
      return std::tie(a->begin, a->end) < std::tie(b->begin, b->end);
    });
    uint64_t covered = 0;
    for (const SafetensorsTensor* tensor : order) {
      if (tensor->begin != covered) {
        FailTensor(tensor->name, "begins at byte " + std::to_string(tensor->begin) + " of the data, " +
                                     (tensor->begin < covered ? "inside another tensor" : "after a hole") +
                                     "; expected " + std::to_string(covered));
      }
      covered = tensor->end;
    }
    if (covered != data_bytes_) {
      Throw(path_, "the tensors end at byte " + std::to_string(covered) + " of the data, the file holds " +
                       std::to_string(data_bytes_));
    }
  }

  JsonReader reader_;
  const std::string& path_;
  uint64_t data_bytes_;
  bool has_metadata_ = false;
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace

SafetensorsHeader ParseSafetensorsHeader(std::string_view header, const std::string& path, uint64_t data_bytes) {
  if (header.empty() || header[0] != '{') Throw(path, "the header does not begin with '{'");
  return HeaderParser(header, path, data_bytes).Parse();
}

}  // namespace heddle
