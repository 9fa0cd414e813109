// The form that a weight matrix takes in memory, and how rows of x meet it.
#pragma once

#include <limits>
#include <string>

#include "base/dtype.h"
#include "base/quantization.h"

namespace heddle {

// Neighbours along K of which a 2:4 sparse matrix keeps two.
inline constexpr int64_t kSparseGroup = 4;
// Sparse matrices are cut between ranks and slices at multiples of two groups, a byte of metadata.
inline constexpr int64_t kSparseUnit = 2 * kSparseGroup;

struct MatrixFormat {
  // Of the values: a float type, or int8, where every output has a scale: weight = value * scale.
  DType dtype = DType::kFloat32;
  // 2:4: of each kSparseGroup neighbours along K two are stored, and which ones. REQUIRES: not float32.
  bool sparse = false;
  // Int8 values only: rows of x are rounded to int8 too, each reduction slice of a row by its largest magnitude below
  // outlier_threshold. Magnitudes from the threshold on are multiplied as they are (LLM.int8).
  bool quantize_x = false;
  float outlier_threshold = std::numeric_limits<float>::infinity();
  // Of quantize_x on a GPU. REQUIRES: kHeddle where sparse.
  Provider provider = Provider::kHeddle;

  // What decides the layout in memory: "bfloat16", "int8 2:4".
  std::string Name() const { return std::string(DTypeName(dtype)) + (sparse ? " 2:4" : ""); }
};

}  // namespace heddle
