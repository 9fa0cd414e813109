#include "quant/bitsandbytes.h"

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "common/checks.h"
#include "common/graph.h"
#include "common/rounding.h"
#include "common/scratch_memory.h"
#include "gemm/epilogues.h"
#include "quant/bitsandbytes_library.h"
#include "quant/outlier_columns.h"

namespace heddle::cuda {
namespace {

// What is asked of x * weight^T (+ bias): y, or, where that is null, the sums in scratch memory, of x's dtype.
struct Part {
  HeddleCudaMatrix x;
  const HeddleCudaWeight& weight;
  const float* bias;
  const HeddleCudaMatrix* y;
};

// Its functions may load their kernels while a graph is captured.
HeddleCudaMatrix Multiply(const HeddleCudaStream& stream, const Part& part) {
  const BitsAndBytesLibrary& library = BitsAndBytes();
  const HeddleCudaMatrix& x = part.x;
  const HeddleCudaMatrix& values = part.weight.values;
  const auto rows = static_cast<int>(x.num_rows);
  const auto k = static_cast<int>(x.size);
  const auto n = static_cast<int>(values.num_rows);

  ScratchMemory memory(stream);
  auto* const rounded = memory.Take<__half>(x.num_rows * k);
  const HeddleCudaMatrix q = {memory.Take<int8_t>(x.num_rows * k), kHeddleCudaInt8, rows, k, k};
  auto* const largest = memory.Take<float>(rows);
  auto* const columns = memory.Take<uint32_t>(CeilDiv(k, 32));
  auto* const integers = memory.Take<int32_t>(x.num_rows * n);
  auto* const sums = memory.Take<__half>(x.num_rows * n);

  // Its own word for "no outliers" would also take infinities for inliers.
  const float threshold = std::min(part.weight.outlier_threshold, FLT_MAX);
  FindOutlierColumns(stream, x, threshold, rounded, columns);
  const CaptureExemption exemption;
  library.quantize_rows(rounded, static_cast<int8_t*>(q.data), largest, threshold, rows, k, stream.stream);
  // Ours are the scales by which it would multiply the largest magnitude of a row of the weight, over 127.
  ClearOutlierColumns(stream, q, columns, largest);
  const int error = library.multiply(BitsAndBytesContext(stream.properties.device), k, rows, n,
                                     static_cast<const int8_t*>(values.data), static_cast<const int8_t*>(q.data),
                                     integers, nullptr, static_cast<int>(values.stride), k, n, stream.stream);
  if (error != 0) {
    Fail(StatusOfLibraryFailure(kHeddleCudaFailed), "cigemmlt_32 of bitsandbytes failed: it has printed why");
  }
  library.scale_sums(integers, largest, const_cast<float*>(part.weight.scales), sums, nullptr, rows, n, stream.stream);
  const HeddleCudaMatrix y = part.y != nullptr ? *part.y : HeddleCudaMatrix{sums, x.dtype, rows, n, n};
  AddOutlierColumns(stream, x, part.weight, columns, sums, part.bias, y);
  return y;
}

// Calls body(first, count) for as many rows at a time as the workspace has room for. It counts elements in ints.
template <typename Body>
void ForParts(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight,
              const Body& body) {
  const int64_t n = weight.values.num_rows;
  const int64_t row_bytes = x.size * 3 + n * 6 + 4;
  const int64_t others = CeilDiv(x.size, 32) * 4 + 6 * 256;
  const int64_t fit = std::min((stream.workspace_bytes - others) / row_bytes, INT32_MAX / std::max(x.size, n));
  const int64_t most = std::max<int64_t>(fit, 1);
  const int64_t even = CeilDiv(x.num_rows, CeilDiv(x.num_rows, most));
  for (int64_t first = 0; first < x.num_rows; first += even) body(first, std::min(even, x.num_rows - first));
}

}  // namespace

bool BitsAndBytesTakes(const HeddleCudaWeight& weight) {
  return weight.values.size % 4 == 0 && weight.values.num_rows % 4 == 0;
}

void BitsAndBytesMatmul(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  ForParts(stream, op.x, op.weight, [&](int64_t first, int64_t count) {
    const HeddleCudaMatrix y = RowsOf(op.y, first, count);
    Multiply(stream, {RowsOf(op.x, first, count), op.weight, op.bias, &y});
  });
}

void BitsAndBytesGatedMatmul(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  ForParts(stream, op.x, op.gate_up, [&](int64_t first, int64_t count) {
    const HeddleCudaMatrix sums = Multiply(stream, {RowsOf(op.x, first, count), op.gate_up, nullptr, nullptr});
    GateSums(stream, sums, op.bias, op.activation, RowsOf(op.y, first, count));
  });
}

}  // namespace heddle::cuda
