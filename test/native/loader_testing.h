// What the tests of the loader share: files of any header, and the message of a failure.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "loader/weight_source.h"
#include "test.h"

namespace heddle::test {

// A safetensors file of this header, true or not, and this data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

inline std::string TensorHeader(const std::string& name, const std::string& dtype, const std::string& shape,
                                const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

inline std::string FloatBytes(const std::vector<float>& values) {
  if (values.empty()) return "";
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

struct FileEntry {
  std::string name;
  std::string dtype;
  std::string shape;  // "[2,3]"
  std::string data;
};

// A safetensors file of these tensors, one behind the other.
inline std::string SafetensorsBytes(const std::vector<FileEntry>& tensors) {
  std::string header = "{";
  std::string data;
  for (const FileEntry& tensor : tensors) {
    const std::string begin = std::to_string(data.size());
    data += tensor.data;
    header += (header.size() > 1 ? "," : "") + TensorHeader(tensor.name, tensor.dtype, tensor.shape,
                                                            "[" + begin + "," + std::to_string(data.size()) + "]");
  }
  return SafetensorsBytes(header + "}", data);
}

// The message of the kModelFormat error that `call` throws; "" when it throws none.
template <typename Call>
std::string FormatError(const Call& call) {
  try {
    (void)call();
  } catch (const Error& error) {
    return error.code() == ErrorCode::kModelFormat ? error.what() : ErrorCodeName(error.code());
  }
  return "";
}

// A whole tensor of a source.
inline Tensor ReadTensor(WeightSource& source, const std::string& name, const Shape& shape) {
  const auto stored = source.Get(name, shape);
  Tensor tensor(stored->dtype(), shape);
  stored->Read(0, tensor);
  return tensor;
}

}  // namespace heddle::test

#define EXPECT_CONTAINS(text, part)                                                                           \
  do {                                                                                                        \
    const std::string text_value = (text);                                                                    \
    if (text_value.find(part) == std::string::npos)                                                           \
      ::heddle::test::Fail(__FILE__, __LINE__, "\"" + text_value + "\" does not contain \"" + (part) + "\""); \
  } while (0)
