// Matmul and GatedMatmul: what is asked of their arguments, and which way a product takes.
#include "gemm/gemm.h"

#include <algorithm>

#include "common/checks.h"
#include "common/ops.h"
#include "common/rounding.h"
#include "gemm/epilogues.h"
#include "gemm/gemv.h"
#include "gemm/skinny.h"
#include "quant/bitsandbytes.h"
#include "quant/int8_gemv.h"
#include "quant/quantized_gemm.h"
#include "sparse/sparse_gemv.h"

namespace heddle::cuda {
namespace {

enum class Method { kGemv, kTiles, kSkinny, kCublasLt, kBitsAndBytes };

// With them a sum of products of int8 stays within int32.
constexpr int64_t kMaxQuantizedColumns = int64_t{1} << 17;

int64_t ColumnsOf(const HeddleCudaWeight& weight) {
  return weight.metadata == nullptr ? weight.values.size : 2 * weight.values.size;
}

bool IsPlain(const HeddleCudaWeight& weight) {
  return weight.values.dtype != kHeddleCudaInt8 && weight.metadata == nullptr;
}

Method MethodFor(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight) {
  if (weight.x_quantization == kHeddleCudaBitsAndBytesX) return Method::kBitsAndBytes;
  if (x.num_rows <= kMaxGemvRows) return Method::kGemv;
  if (!IsPlain(weight)) return CanTile(stream, x, weight) ? Method::kTiles : Method::kGemv;
  return CanSkinny(stream, x, weight.values) ? Method::kSkinny : Method::kCublasLt;
}

// Tiles take rows of gate and up by eights.
Method GatedMethodFor(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  const Method method = MethodFor(stream, op.x, op.gate_up);
  return method == Method::kTiles && op.y.size % 8 != 0 ? Method::kGemv : method;
}

// The parts of `weight` fit each other, and x's dtype.
void CheckWeight(const std::string& op, const HeddleCudaWeight& weight, HeddleCudaDType x_dtype) {
  const auto require = [&](bool condition, const char* what) {
    if (!condition) Fail(kHeddleCudaInvalid, op + ": " + what);
  };
  const HeddleCudaMatrix& values = weight.values;
  const bool quantized = values.dtype == kHeddleCudaInt8;
  CheckSizes(values, op + ": the weight");
  require(HasAlignedRows(values), "a row of the weight does not begin on 16 bytes");
  require(quantized || values.dtype == x_dtype, "x and the weight differ in dtype");
  require(IsPlain(weight) || x_dtype != kHeddleCudaFloat32, "int8 and 2:4 weights take x of 16 bits only");
  require(quantized == (weight.scales != nullptr), "int8 weights, and no others, have scales");
  require(weight.x_quantization == kHeddleCudaKeepX ||
              (quantized &&
               (weight.x_quantization == kHeddleCudaQuantizeX || weight.x_quantization == kHeddleCudaBitsAndBytesX)),
          "x can be kept, or quantised where the weight is int8");
  require(weight.x_quantization != kHeddleCudaBitsAndBytesX || weight.metadata == nullptr,
          "bitsandbytes takes no 2:4 weights");
  require(weight.x_quantization == kHeddleCudaKeepX || weight.outlier_threshold > 0,
          "the threshold of outliers is not positive");
  require(weight.x_quantization == kHeddleCudaKeepX || ColumnsOf(weight) <= kMaxQuantizedColumns,
          "a quantised x of more than 2^17 columns");
  if (weight.metadata == nullptr) return;
  require(values.size % 4 == 0, "the columns of a 2:4 weight are no multiple of 8");
  require(IsAligned(weight.metadata) && weight.metadata_stride % 16 == 0,
          "a row of the metadata does not begin on 16 bytes");
  require(weight.metadata_stride >= values.size / 4, "the metadata has rows that overlap");
}

void CheckOperands(const std::string& op, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight,
                   int64_t weight_rows, const HeddleCudaMatrix& y) {
  CheckMatrix(x, op + ": x");
  CheckWeight(op, weight, x.dtype);
  CheckMatrix(y, op + ": y");
  const auto require = [&](bool condition, const char* what) {
    if (!condition) Fail(kHeddleCudaInvalid, op + ": " + what);
  };
  require(x.size == ColumnsOf(weight), "x and the weight differ in columns");
  require(x.size > 0, "x has no columns");
  require(x.num_rows == y.num_rows, "x and y differ in rows");
  require(weight.values.num_rows == weight_rows, "the weight's rows are not those that y has columns for");
  require(HasAlignedRows(x) && HasAlignedRows(y), "a row does not begin on 16 bytes");
}

// Calls body(first, count) for parts of `num_rows` rows, at most `part` each.
template <typename Body>
void ForParts(int64_t num_rows, int64_t part, const Body& body) {
  for (int64_t first = 0; first < num_rows; first += part) body(first, std::min(part, num_rows - first));
}

// One pass over the weights for every kMaxGemvRows rows, whatever form the weights have.
template <typename Op>
void GemvInParts(const HeddleCudaStream& stream, const Op& op, const HeddleCudaWeight& weight) {
  ForParts(op.x.num_rows, kMaxGemvRows, [&](int64_t first, int64_t count) {
    Op part = op;
    part.x = RowsOf(op.x, first, count);
    part.y = RowsOf(op.y, first, count);
    const bool is_int8 = weight.values.dtype == kHeddleCudaInt8;
    if (weight.metadata != nullptr) return is_int8 ? SparseInt8Gemv(stream, part) : SparseGemv(stream, part);
    is_int8 ? Int8Gemv(stream, part) : Gemv(stream, part);
  });
}

// Calls finish(sums, first) after each part of x * weight^T: sums, rounded to `dtype`, of sums.num_rows rows from
// `first` on, in the workspace, as many at a time as fit. False when cuBLASLt has no algorithm; some parts may have
// been finished then.
template <typename Finish>
bool MultiplyInParts(HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight,
                     HeddleCudaDType dtype, const Finish& finish) {
  const int64_t num_sums = weight.values.num_rows;
  HeddleCudaMatrix sums{nullptr, dtype, 0, num_sums, RoundUp(num_sums, 8)};
  const int64_t row_bytes = sums.stride * SizeOf(sums.dtype);
  const int64_t available = BytesBeforeGemmWorkspace(stream);
  const int64_t most = std::max<int64_t>(available / row_bytes, 1);
  sums.data = stream.Scratch(std::min(most, x.num_rows) * row_bytes + stream.workspace_bytes - available);
  // Even parts, in whole tiles of the product.
  constexpr int64_t kTileRows = 128;
  const int64_t even = CeilDiv(x.num_rows, CeilDiv(x.num_rows, most));
  const int64_t part = std::min(most, RoundUp(even, kTileRows));

  GemmPlans& plans = GemmPlans::Of(stream);
  bool multiplied = true;
  ForParts(x.num_rows, part, [&](int64_t first, int64_t count) {
    sums.num_rows = count;
    multiplied = multiplied && plans.Multiply(stream, {RowsOf(x, first, count), weight, nullptr, sums});
    if (multiplied) finish(sums, first);
  });
  return multiplied;
}

void CublasLtMatmul(HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  // cuBLASLt adds a bias of y's own type only.
  const bool adds_bias = op.bias == nullptr || op.y.dtype == kHeddleCudaFloat32;
  if (adds_bias && GemmPlans::Of(stream).Multiply(stream, op)) return;
  const auto finish = [&](const HeddleCudaMatrix& sums, int64_t first) {
    RoundWithBias(stream, sums, op.bias, RowsOf(op.y, first, sums.num_rows));
  };
  if (!adds_bias && MultiplyInParts(stream, op.x, op.weight, kHeddleCudaFloat32, finish)) return;
  // There are odd sizes that it does not take.
  GemvInParts(stream, op, op.weight);
}

void CublasLtGatedMatmul(HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  const auto finish = [&](const HeddleCudaMatrix& sums, int64_t first) {
    GateSums(stream, sums, op.bias, op.activation, RowsOf(op.y, first, sums.num_rows));
  };
  // Sums of 16 bits are half of what is written and read again. Rounding them costs no more than rounding y does, and
  // is what others' models do; but a bias is added before anything is rounded.
  const HeddleCudaDType dtype = op.bias == nullptr ? op.y.dtype : kHeddleCudaFloat32;
  if (MultiplyInParts(stream, op.x, op.gate_up, dtype, finish)) return;
  GemvInParts(stream, op, op.gate_up);
}

// The same by kernels of ours.
HeddleCudaMatmul OwnOf(HeddleCudaMatmul op) {
  op.weight.x_quantization = kHeddleCudaQuantizeX;
  return op;
}
HeddleCudaGatedMatmul OwnOf(HeddleCudaGatedMatmul op) {
  op.gate_up.x_quantization = kHeddleCudaQuantizeX;
  return op;
}

}  // namespace

void Matmul(HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  CheckOperands("matmul", op.x, op.weight, op.y.size, op.y);
  Require(op.y.dtype == op.x.dtype || op.y.dtype == kHeddleCudaFloat32,
          "matmul: y is neither of x's dtype nor float32");
  if (IsEmpty(op.y)) return;
  switch (MethodFor(stream, op.x, op.weight)) {
    case Method::kGemv:
      return GemvInParts(stream, op, op.weight);
    case Method::kTiles:
      return TileMatmul(stream, op);
    case Method::kSkinny:
      return SkinnyMatmul(stream, op);
    case Method::kCublasLt:
      return CublasLtMatmul(stream, op);
    case Method::kBitsAndBytes:
      return BitsAndBytesTakes(op.weight) ? BitsAndBytesMatmul(stream, op) : Matmul(stream, OwnOf(op));
  }
}

void GatedMatmul(HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  CheckOperands("gated_matmul", op.x, op.gate_up, 2 * op.y.size, op.y);
  Require(op.y.dtype == op.x.dtype, "gated_matmul: x and y differ in dtype");
  Require(op.activation == kHeddleCudaSilu || op.activation == kHeddleCudaGeluTanh || op.activation == kHeddleCudaGelu,
          "gated_matmul: an activation that is none");
  if (IsEmpty(op.y)) return;
  switch (GatedMethodFor(stream, op)) {
    case Method::kGemv:
      return GemvInParts(stream, op, op.gate_up);
    case Method::kTiles:
      return TileGatedMatmul(stream, op);
    case Method::kSkinny:
      return SkinnyGatedMatmul(stream, op);
    case Method::kCublasLt:
      return CublasLtGatedMatmul(stream, op);
    case Method::kBitsAndBytes:
      return BitsAndBytesTakes(op.gate_up) ? BitsAndBytesGatedMatmul(stream, op) : GatedMatmul(stream, OwnOf(op));
  }
}

}  // namespace heddle::cuda
