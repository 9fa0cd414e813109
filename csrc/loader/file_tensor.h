// A tensor whose elements lie in its file as they are.
#pragma once

#include <string_view>
#include <vector>

#include "loader/checkpoint_files.h"
#include "loader/weight_source.h"

namespace heddle {

inline const std::vector<std::string_view> kFloatDTypes{"F32", "BF16", "F16"};

// REQUIRES: one of kFloatDTypes, or I8.
DType DTypeOf(const SafetensorsTensor& entry);

class FileTensor : public StoredTensor {
 public:
  // `scales` are the row_scales() of an int8 tensor. REQUIRES: as DTypeOf; an entry of this shape.
  FileTensor(const LocatedTensor& located, const Shape& shape, std::vector<float> scales = {});

 private:
  void ReadElements(int64_t begin, int64_t count, void* destination) const override;

  LocatedTensor located_;
};

}  // namespace heddle
