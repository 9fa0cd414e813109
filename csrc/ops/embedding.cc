#include <algorithm>

#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {
namespace {

// load(row, out) fills `out` [hidden] from a row of the table.
template <typename LoadRow>
void Lookup(Stream& stream, std::span<const int32_t> ids, int64_t first_id, int64_t num_rows, const TensorView& y,
            const LoadRow& load) {
  const int64_t hidden = y.dim(1);
  ParallelFor(stream, y.dim(0), hidden, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t row = ids[static_cast<size_t>(token)] - first_id;
      float* out = y.Row<float>(token);
      if (row >= 0 && row < num_rows) {
        load(row, out);
      } else {
        std::fill_n(out, hidden, 0.0f);
      }
    }
  });
}

}  // namespace

void Embedding(Stream& stream, std::span<const int32_t> ids, const TensorView& table, int64_t first_id, float scale,
               const TensorView& y) {
  const OpTimer timer(stream);
  CheckRank("Embedding: table", table, 2);
  CheckView("Embedding: y", y, DType::kFloat32, {static_cast<int64_t>(ids.size()), table.dim(1)});
  if (stream.cuda() != nullptr) return cuda::Embedding(stream, ids, table, nullptr, first_id, scale, y);
  const cpu::Storage storage = StorageOf("Embedding: table", table.dtype);
  const int64_t row_bytes = table.row_stride * static_cast<int64_t>(DTypeSize(table.dtype));
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  Lookup(stream, ids, first_id, table.dim(0), y, [&](int64_t row, float* out) {
    kernels.widen(storage, static_cast<const char*>(table.data) + row * row_bytes, table.dim(1), scale, out);
  });
}

void Embedding(Stream& stream, std::span<const int32_t> ids, const PackedMatrix& table, int64_t first_id, float scale,
               const TensorView& y) {
  const OpTimer timer(stream);
  const int64_t hidden = table.k();
  CheckView("Embedding: y", y, DType::kFloat32, {static_cast<int64_t>(ids.size()), hidden});
  if (stream.cuda() != nullptr) {
    const auto* scales = static_cast<const float*>(table.RowScales().data);
    return cuda::Embedding(stream, ids, table.Rows(), scales, first_id, scale, y);
  }
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  Lookup(stream, ids, first_id, table.n(), y, [&](int64_t row, float* out) {
    table.UnpackRow(row, {out, static_cast<size_t>(hidden)});
    kernels.widen(cpu::Storage::kFloat32, out, hidden, scale, out);
  });
}

}  // namespace heddle::ops
