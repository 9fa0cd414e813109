#include "layers/weight_loading.h"

#include <algorithm>

#include "base/rounding.h"
#include "layers/matrix_rows.h"

namespace heddle {
namespace {

// Stays in the second cache level between reading and packing. At least one panel's rows are read, though.
constexpr int64_t kStripBytes = int64_t{256} << 10;

// Calls use(begin, end) for strips that make up [rows.begin, rows.end). They begin where panels of a packed matrix do,
// so that no two threads write one panel.
template <typename Use>
void ForEachStrip(const BuildContext& context, Range rows, int64_t row_bytes, const Use& use) {
  ThreadPool& threads = context.stream.threads();
  const int64_t step = std::max<int64_t>(1, kStripBytes / (row_bytes * kPanelWidth));
  const int64_t first = rows.begin / kPanelWidth;
  const int64_t last = CeilDiv(rows.end, kPanelWidth);
  threads.Run([&](int thread) {
    const WorkRange panels = SplitWork(last - first, thread, threads.num_threads());
    for (int64_t panel = first + panels.begin; panel < first + panels.end; panel += step) {
      if (context.cancelled.load(std::memory_order_relaxed)) {
        throw Error(ErrorCode::kCancelled, "loading was cancelled");
      }
      const int64_t end = std::min(panel + step, first + panels.end);
      use(std::max(rows.begin, panel * kPanelWidth), std::min(rows.end, end * kPanelWidth));
    }
  });
}

bool Restore(const BuildContext& context, const std::string& name, Tensor& memory, int64_t bytes) {
  if (context.cache == nullptr || !context.cache->Restore(name, memory)) return false;
  context.on_packed(bytes);
  return true;
}

}  // namespace

bool Restore(const BuildContext& context, const std::string& name, PackedMatrix& matrix) {
  return Restore(context, name + ": " + matrix.Form(), matrix.memory(), static_cast<int64_t>(matrix.size_bytes()));
}

void PackRows(const BuildContext& context, const std::string& name, const StoredTensor& stored, Range rows,
              Range columns, int64_t at, PackedMatrix& destination) {
  // Of a matrix that is packed in parts, each counts by its rows.
  const int64_t bytes =
      destination.n() > 0 ? static_cast<int64_t>(destination.size_bytes()) * rows.size() / destination.n() : 0;
  if (context.uploader != nullptr) {
    context.uploader->Upload(name, stored, rows, columns, at, destination);
    return context.on_packed(bytes);
  }
  const int64_t width = stored.shape()[1];
  const auto row_bytes = width * static_cast<int64_t>(DTypeSize(stored.dtype()));
  ForEachStrip(context, {at, at + rows.size()}, row_bytes, [&](int64_t begin, int64_t end) {
    const MatrixRows strip = ReadMatrixRows(name, stored, rows.begin + begin - at, end - begin, destination.format());
    destination.PackRows(begin, strip.values.view().Columns(columns.begin, columns.end),
                         strip.scales.empty() ? nullptr : strip.scales.data());
  });
  context.on_packed(bytes);
}

Tensor LoadRows(const BuildContext& context, const std::string& name, const StoredTensor& stored, Range rows) {
  Tensor table(stored.dtype(), {rows.size(), stored.shape()[1]}, context.memory);
  const auto row_bytes = stored.shape()[1] * static_cast<int64_t>(DTypeSize(stored.dtype()));
  const std::string form = std::string(DTypeName(stored.dtype())) + " " + table.view().shape.ToString();
  if (Restore(context, name + ": " + form, table, rows.size() * row_bytes)) return table;
  ForEachStrip(context, {0, rows.size()}, row_bytes,
               [&](int64_t begin, int64_t end) { stored.Read(rows.begin + begin, table.view().Rows(begin, end)); });
  context.on_packed(rows.size() * row_bytes);
  return table;
}

Tensor ReadVector(WeightSource& weights, const std::string& name, int64_t size, float offset) {
  const auto stored = weights.Get(name, {size});
  const Tensor narrow(stored->dtype(), {size});
  stored->Read(0, narrow);
  Tensor vector(DType::kFloat32, {size});
  float* values = vector.view().Data<float>();
  for (int64_t i = 0; i < size; ++i) values[i] = LoadFloat(stored->dtype(), narrow.view().data, i) + offset;
  return vector;
}

Tensor LoadVector(const BuildContext& context, const std::string& name, int64_t size, float offset) {
  return ToDevice(context, ReadVector(context.weights, name, size, offset));
}

Tensor ToDevice(const BuildContext& context, const Tensor& tensor) {
  CudaStream* const cuda = context.stream.cuda();
  if (cuda == nullptr) return tensor;
  const TensorView& view = tensor.view();
  Tensor copy(view.dtype, view.shape, *cuda);
  cuda->Copy(copy.view().data, view.data, static_cast<size_t>(view.shape.NumElements()) * DTypeSize(view.dtype));
  return copy;
}

}  // namespace heddle
