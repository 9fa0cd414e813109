#include <algorithm>

#include "base/rounding.h"
#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {
namespace {

// Below this many multiply-adds waking the others costs more than they save.
constexpr int64_t kMinParallelWork = 65536;
// Pieces of a product that a thread starts with: as many as share out unevenness, as few as make long pieces, in whole
// numbers of the panels that the widest tiles take.
constexpr int kPiecesPerThread = 4;
constexpr int64_t kPanelsTogether = 8;
// Of packed products whose weights are streamed, pieces are cut by bytes: what a thread reads in some microseconds,
// since a piece of a thread that loses its core waits until the thread is back. Several panels they are in any case.
constexpr int64_t kStreamPieceBytes = int64_t{64} << 10;
constexpr int64_t kStreamPiecePanels = 4;

static_assert(cpu::kMaxSlices == kNumReductionSlices);

// Panels of a piece.
int64_t PieceOf(int64_t num_panels, int num_threads) {
  const int64_t pieces = int64_t{kPiecesPerThread} * num_threads;
  const int64_t piece = CeilDiv(num_panels, pieces);
  return piece <= kPanelsTogether ? piece : RoundUp(piece, kPanelsTogether);
}

int64_t StreamPieceOf(const cpu::MatmulArgs& args) {
  return std::max<int64_t>(kStreamPiecePanels, kStreamPieceBytes / std::max<int64_t>(args.panel_bytes, 1));
}

bool IsParallel(const Stream& stream, const cpu::MatmulArgs& args, int64_t k) {
  return stream.threads().num_threads() > 1 && args.m * args.n * k >= kMinParallelWork;
}

// Calls multiply(args, panel_begin, panel_end) for pieces of `piece` panels on the threads of the stream, each with its
// part of the scratch memory.
template <typename Multiply>
void ShareOutPanels(Stream& stream, bool parallel, const cpu::MatmulArgs& args, int64_t num_panels, int64_t piece,
                    size_t scratch_floats, const Multiply& multiply) {
  const auto run = [&](int thread, int64_t begin, int64_t end) {
    cpu::MatmulArgs own = args;
    own.scratch += scratch_floats * static_cast<size_t>(thread);
    multiply(own, begin, end);
  };
  if (!parallel) return run(0, 0, num_panels);
  stream.threads().RunPieces(num_panels, piece, run);
}

// Block of rows by block: packed by all threads, then multiplied by all.
void PackedMatmul(Stream& stream, const cpu::PackedMatmulKernels& kernels, cpu::MatmulArgs args, int64_t k,
                  int64_t num_panels) {
  const int64_t num_rows = args.m;
  const int64_t block_rows = kernels.block_rows(args);
  const size_t num_threads = static_cast<size_t>(stream.threads().num_threads());
  const size_t scratch_floats = kernels.scratch_floats();
  args.m = std::min(num_rows, block_rows);
  const size_t scratch_bytes = scratch_floats * num_threads * sizeof(float);
  // The packed rows first, where the memory is a huge page: they are to stay in L2, which small pages fill unevenly.
  const size_t packed_bytes = (kernels.packed_bytes(args) + 63) / 64 * 64;
  void* const packed = stream.Scratch(packed_bytes + scratch_bytes);
  args.scratch = reinterpret_cast<float*>(static_cast<char*>(packed) + packed_bytes);
  for (int64_t row = 0; row < num_rows; row += block_rows) {
    cpu::MatmulArgs block = args;
    block.m = std::min(num_rows - row, block_rows);
    block.x += row * args.x_stride;
    block.y += row * args.y_stride;
    const bool parallel = IsParallel(stream, block, k);
    ParallelFor(stream, CeilDiv(block.m, kernels.pack_rows), std::min(block.m, kernels.pack_rows) * k,
                [&](int64_t begin, int64_t end) { kernels.pack(block, begin, end, packed); });
    const int64_t piece =
        block.m <= cpu::kMaxStreamedRows ? StreamPieceOf(block) : PieceOf(num_panels, stream.threads().num_threads());
    ShareOutPanels(stream, parallel, block, num_panels, piece, scratch_floats,
                   [&](const cpu::MatmulArgs& own, int64_t panel_begin, int64_t panel_end) {
                     kernels.matmul(own, packed, panel_begin, panel_end);
                   });
  }
}

cpu::MatmulArgs ArgsOf(const TensorView& x, const PackedMatrix& weight, const TensorView& y) {
  return {.x = x.Data<float>(),
          .x_stride = x.row_stride,
          .m = x.dim(0),
          .weight = weight.Panel(0),
          .storage = weight.dtype() == DType::kInt8 ? cpu::Storage::kInt8 : StorageOf("Matmul: weight", weight.dtype()),
          .sparse = weight.format().sparse,
          .panel_bytes = weight.panel_bytes(),
          .scales = weight.scales(),
          .slice_sums = weight.SliceSums(0),
          .outlier_threshold = weight.format().outlier_threshold,
          .n = y.dim(1),
          .num_slices = weight.num_slices(),
          .slice_bounds = weight.slice_bounds().data(),
          .packed_bounds = weight.packed_bounds().data(),
          .bias = nullptr,
          .gated = nullptr,
          .y = y.Data<float>(),
          .y_stride = y.row_stride,
          .scratch = nullptr};
}

// The kernels that round rows of x for such a weight; null where they are multiplied as they are.
const cpu::PackedMatmulKernels* RoundingKernels(const cpu::Kernels& kernels, const MatrixFormat& format) {
  if (format.quantize_x) return kernels.int8_matmul;
  const cpu::PackedMatmulKernels* packed = kernels.packed_matmul;
  const bool widened = format.dtype == DType::kInt8 && packed != nullptr && packed->widens_int8;
  return format.dtype == DType::kBFloat16 || widened ? packed : nullptr;
}

void Multiply(Stream& stream, cpu::MatmulArgs args, const PackedMatrix& weight) {
  if (args.m == 0 || args.n == 0) return;
  const int64_t k = weight.k();
  const int64_t num_panels = CeilDiv(args.n, kPanelWidth);
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  if (const cpu::PackedMatmulKernels* rounding = RoundingKernels(kernels, weight.format()); rounding != nullptr) {
    return PackedMatmul(stream, *rounding, args, k, num_panels);
  }
  const size_t scratch_floats = kernels.matmul_scratch_floats();
  const size_t num_threads = static_cast<size_t>(stream.threads().num_threads());
  args.scratch = static_cast<float*>(stream.Scratch(scratch_floats * sizeof(float) * num_threads));
  ShareOutPanels(stream, IsParallel(stream, args, k), args, num_panels,
                 PieceOf(num_panels, stream.threads().num_threads()), scratch_floats, kernels.matmul);
}

static_assert(static_cast<int>(Activation::kSilu) == static_cast<int>(cpu::GatedKind::kSilu));
static_assert(static_cast<int>(Activation::kGeluTanh) == static_cast<int>(cpu::GatedKind::kGeluTanh));
static_assert(static_cast<int>(Activation::kGelu) == static_cast<int>(cpu::GatedKind::kGelu));

}  // namespace

void Matmul(Stream& stream, const TensorView& x, const PackedMatrix& weight, const TensorView& y,
            const TensorView* bias) {
  const OpTimer timer(stream);
  CheckRank("Matmul: x", x, 2);
  if (stream.cuda() != nullptr) return cuda::Matmul(stream, x, weight, y, bias);
  CheckView("Matmul: x", x, DType::kFloat32, {x.dim(0), weight.k()});
  CheckView("Matmul: y", y, DType::kFloat32, {x.dim(0), weight.n()});
  if (bias != nullptr) CheckContiguous("Matmul: bias", *bias, DType::kFloat32, {weight.n()});
  cpu::MatmulArgs args = ArgsOf(x, weight, y);
  if (bias != nullptr) args.bias = bias->Data<float>();
  Multiply(stream, args, weight);
}

void GatedMatmul(Stream& stream, Activation activation, const TensorView& x, const PackedMatrix& gate_up,
                 const TensorView& y, const TensorView* bias) {
  const OpTimer timer(stream);
  CheckRank("GatedMatmul: x", x, 2);
  CheckRank("GatedMatmul: y", y, 2);
  if (stream.cuda() != nullptr) return cuda::GatedMatmul(stream, activation, x, gate_up, y, bias);
  const int64_t half = GatedHalf(y.dim(1), gate_up.layout());
  CheckView("GatedMatmul: x", x, DType::kFloat32, {x.dim(0), gate_up.k()});
  CheckView("GatedMatmul: y", y, DType::kFloat32, {x.dim(0), y.dim(1)});
  HEDDLE_CHECK(gate_up.n() == 2 * half, std::to_string(gate_up.n()) + " rows for " + std::to_string(y.dim(1)));
  if (bias != nullptr) CheckContiguous("GatedMatmul: bias", *bias, DType::kFloat32, {2 * half});
  const cpu::GatedArgs gated{.kind = static_cast<cpu::GatedKind>(activation),
                             .up = gate_up.Panel(half / kPanelWidth),
                             .up_scales = gate_up.scales() != nullptr ? gate_up.scales() + half : nullptr,
                             .up_slice_sums = gate_up.SliceSums(half / kPanelWidth),
                             .up_bias = bias != nullptr ? bias->Data<float>() + half : nullptr};
  cpu::MatmulArgs args = ArgsOf(x, gate_up, y);
  args.gated = &gated;
  if (bias != nullptr) args.bias = bias->Data<float>();
  Multiply(stream, args, gate_up);
}

}  // namespace heddle::ops
