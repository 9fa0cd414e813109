// A checkpoint whose matrices may be int8, 2:4 sparse or both.
#pragma once

#include <memory>
#include <string>

#include "loader/stored_quantization.h"
#include "loader/weight_source.h"

namespace heddle {

// As OpenCheckpoint. A matrix "X.weight" of a quantised module comes as int8 with its row_scales(), whatever its
// tensors are called; one of a sparse module comes with its zeros. Get fails with kModelFormat, naming tensor,
// expectation and finding, when a tensor of a module is missing or has another shape or dtype than `stored` says, and
// when a scale is not finite and above zero. What helps to store a matrix counts as asked for with it.
std::unique_ptr<WeightSource> OpenQuantizedCheckpoint(const std::string& folder, const StoredQuantization& stored);

}  // namespace heddle
