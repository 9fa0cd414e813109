#include "loader/file_tensor.h"

namespace heddle {

DType DTypeOf(const SafetensorsTensor& entry) {
  if (entry.dtype == "F32") return DType::kFloat32;
  if (entry.dtype == "BF16") return DType::kBFloat16;
  if (entry.dtype == "F16") return DType::kFloat16;
  HEDDLE_CHECK(entry.dtype == "I8", entry.name + " is " + std::string(entry.dtype));
  return DType::kInt8;
}

FileTensor::FileTensor(const LocatedTensor& located, const Shape& shape, std::vector<float> scales)
    : StoredTensor(DTypeOf(*located.entry), shape, std::move(scales)), located_(located) {
  const SafetensorsTensor& entry = *located_.entry;
  HEDDLE_CHECK(static_cast<uint64_t>(shape.NumElements()) * DTypeSize(dtype()) == entry.end - entry.begin, entry.name);
}

void FileTensor::ReadElements(int64_t begin, int64_t count, void* destination) const {
  const auto size = static_cast<uint64_t>(DTypeSize(dtype()));
  located_.file->Read(*located_.entry, static_cast<uint64_t>(begin) * size, static_cast<uint64_t>(count) * size,
                      destination);
}

}  // namespace heddle
