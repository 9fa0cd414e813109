// Matmul and GatedMatmul: what is asked of their arguments, and which way a product takes.
#include "gemm/gemm.h"

#include <algorithm>

#include "common/checks.h"
#include "common/ops.h"
#include "common/rounding.h"
#include "gemm/epilogues.h"
#include "gemm/gemv.h"
#include "gemm/skinny.h"

namespace heddle::cuda {
namespace {

enum class Method { kGemv, kSkinny, kCublasLt };

Method MethodFor(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight) {
  if (x.num_rows <= kMaxGemvRows) return Method::kGemv;
  return CanSkinny(stream, x, weight) ? Method::kSkinny : Method::kCublasLt;
}

void CheckMatrices(const std::string& op, const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight,
                   int64_t weight_rows, const HeddleCudaMatrix& y) {
  CheckMatrix(x, op + ": x");
  CheckMatrix(weight, op + ": the weight");
  CheckMatrix(y, op + ": y");
  const auto require = [&](bool condition, const char* what) {
    if (!condition) Fail(kHeddleCudaInvalid, op + ": " + what);
  };
  require(x.dtype == weight.dtype, "x and the weight differ in dtype");
  require(x.size == weight.size, "x and the weight differ in columns");
  require(x.size > 0, "x has no columns");
  require(x.num_rows == y.num_rows, "x and y differ in rows");
  require(weight.num_rows == weight_rows, "the weight's rows are not those that y has columns for");
  require(HasAlignedRows(x) && HasAlignedRows(weight) && HasAlignedRows(y), "a row does not begin on 16 bytes");
}

HeddleCudaMatrix RowsOf(const HeddleCudaMatrix& matrix, int64_t first, int64_t count) {
  HeddleCudaMatrix rows = matrix;
  rows.data = static_cast<unsigned char*>(matrix.data) + first * matrix.stride * SizeOf(matrix.dtype);
  rows.num_rows = count;
  return rows;
}

// Calls body(first, count) for parts of `num_rows` rows, at most `part` each.
template <typename Body>
void ForParts(int64_t num_rows, int64_t part, const Body& body) {
  for (int64_t first = 0; first < num_rows; first += part) body(first, std::min(part, num_rows - first));
}

// Calls finish(sums, first) after each part of x * weight^T: sums, rounded to `dtype`, of sums.num_rows rows from
// `first` on, in the workspace, as many at a time as fit. False when cuBLASLt has no algorithm; some parts may have
// been finished then.
template <typename Finish>
bool MultiplyInParts(HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight,
                     HeddleCudaDType dtype, const Finish& finish) {
  HeddleCudaMatrix sums{nullptr, dtype, 0, weight.num_rows, RoundUp(weight.num_rows, 8)};
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
  ForParts(op.x.num_rows, kMaxGemvRows, [&](int64_t first, int64_t count) {
    Gemv(stream, {RowsOf(op.x, first, count), op.weight, op.bias, RowsOf(op.y, first, count)});
  });
}

void CublasLtGatedMatmul(HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  const auto finish = [&](const HeddleCudaMatrix& sums, int64_t first) {
    GateSums(stream, sums, op.bias, op.activation, RowsOf(op.y, first, sums.num_rows));
  };
  // Sums of 16 bits are half of what is written and read again. Rounding them costs no more than rounding y does, and
  // is what others' models do; but a bias is added before anything is rounded.
  const HeddleCudaDType dtype = op.bias == nullptr ? op.y.dtype : kHeddleCudaFloat32;
  if (MultiplyInParts(stream, op.x, op.gate_up, dtype, finish)) return;
  ForParts(op.x.num_rows, kMaxGemvRows, [&](int64_t first, int64_t count) {
    GatedGemv(stream, {RowsOf(op.x, first, count), op.gate_up, op.bias, op.activation, RowsOf(op.y, first, count)});
  });
}

}  // namespace

void Matmul(HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  CheckMatrices("matmul", op.x, op.weight, op.y.size, op.y);
  Require(op.y.dtype == op.x.dtype || op.y.dtype == kHeddleCudaFloat32,
          "matmul: y is neither of x's dtype nor float32");
  if (IsEmpty(op.y)) return;
  switch (MethodFor(stream, op.x, op.weight)) {
    case Method::kGemv:
      return Gemv(stream, op);
    case Method::kSkinny:
      return SkinnyMatmul(stream, op);
    case Method::kCublasLt:
      return CublasLtMatmul(stream, op);
  }
}

void GatedMatmul(HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  CheckMatrices("gated_matmul", op.x, op.gate_up, 2 * op.y.size, op.y);
  Require(op.y.dtype == op.x.dtype, "gated_matmul: x and y differ in dtype");
  Require(op.activation == kHeddleCudaSilu || op.activation == kHeddleCudaGeluTanh || op.activation == kHeddleCudaGelu,
          "gated_matmul: an activation that is none");
  if (IsEmpty(op.y)) return;
  switch (MethodFor(stream, op.x, op.gate_up)) {
    case Method::kGemv:
      return GatedGemv(stream, op);
    case Method::kSkinny:
      return SkinnyGatedMatmul(stream, op);
    case Method::kCublasLt:
      return CublasLtGatedMatmul(stream, op);
  }
}

}  // namespace heddle::cuda
