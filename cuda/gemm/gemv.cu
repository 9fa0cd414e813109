#include "gemm/gemv.h"

#include <algorithm>

#include "common/checks.h"
#include "gemm/gemv_kernel.cuh"

namespace heddle::cuda {
namespace {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How a block's shared memory is divided. A long ring hides more, but beside the kernel that runs there must be room
// for the next product's: of an SM's 228 KiB a block takes at most 112.
struct Division {
  int stages;       // of each warp's ring
  int max_x_bytes;  // of all rows of x where `whole`, else of one slab
  bool whole;
};
constexpr int kLongRing = 5;
constexpr int kShortRing = 3;
constexpr Division kDivisions[] = {
    {kLongRing, 29 * 1024, true},
    {kShortRing, 50 * 1024, true},
    {kShortRing, 25 * 1024, false},
    {kShortRing, 17 * 1024, false},  // for devices whose blocks have less than 100 KiB
};

int SharedBytes(const GemvArguments& arguments, const Division& division, int groups) {
  return RingBytes(division.stages) + XSharedBytes(arguments) + PartialSumsBytes(arguments, groups);
}

// Groups of 16 weight rows a tile: the number that leaves the busiest block with the fewest, of equals the largest, as
// there are fewer reductions then. Where x does not stay in shared memory, each tile reads it again from L2: not 1.
int ChooseGroups(int num_outputs, bool x_stays, int num_blocks) {
  const int64_t groups = CeilDiv(num_outputs, kGroupRows);
  const auto most = [&](int per_tile) { return per_tile * CeilDiv(CeilDiv(groups, per_tile), num_blocks); };
  int best = x_stays ? 1 : 2;
  for (int per_tile = best + 1; per_tile <= 3; ++per_tile) {
    if (most(per_tile) <= most(best)) best = per_tile;
  }
  return best;
}

// Cuts k into slabs that fit, even in rounds. False where x is to stay whole and does not fit.
bool DivideX(const Division& division, GemvArguments& arguments) {
  const int max_rounds = (division.max_x_bytes / arguments.num_rows - kXPaddingBytes) / kRoundBytes;
  const int num_slabs = static_cast<int>(CeilDiv(arguments.num_rounds, max_rounds));
  if (division.whole && num_slabs > 1) return false;
  arguments.num_slabs = num_slabs;
  arguments.x_shared_pitch = static_cast<int>(CeilDiv(arguments.num_rounds, num_slabs)) * kRoundBytes + kXPaddingBytes;
  return true;
}

template <typename T, int kStages, bool kGated>
auto KernelFor(int groups) {
  if constexpr (!kGated) {
    if (groups == 1) return GemvKernel<T, 1, kStages, false>;
    if (groups == 3) return GemvKernel<T, 3, kStages, false>;
  }
  return GemvKernel<T, 2, kStages, kGated>;
}

template <typename T, bool kGated>
void LaunchGemv(const HeddleCudaStream& stream, GemvArguments& arguments) {
  for (const Division& division : kDivisions) {
    if (!DivideX(division, arguments)) continue;
    const int num_blocks = stream.properties.num_multiprocessors;
    const int groups = kGated ? 2 : ChooseGroups(arguments.num_outputs, arguments.num_slabs == 1, num_blocks);
    const int shared_bytes = SharedBytes(arguments, division, groups);
    if (shared_bytes > stream.properties.shared_bytes_per_block) continue;

    arguments.num_tiles = static_cast<int>(CeilDiv(arguments.num_outputs, kGroupRows * (kGated ? 1 : groups)));
    const auto kernel = division.stages == kLongRing ? KernelFor<T, kLongRing, kGated>(groups)
                                                     : KernelFor<T, kShortRing, kGated>(groups);
    AllowShared(kernel, shared_bytes);
    // Beside a block there must be room for one of the next product: with less shared memory that would have to wait.
    HEDDLE_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
    return Launch(stream, kernel, dim3(std::min(arguments.num_tiles, num_blocks)), dim3(kGemvThreads), shared_bytes,
                  arguments);
  }
  Fail(kHeddleCudaInvalid, "matmul: the device has too little shared memory");
}

GemvArguments ArgumentsOf(const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight, const float* bias,
                          const HeddleCudaMatrix& y) {
  // Offsets within a row and numbers of rows are 32-bit in the kernel.
  Require(x.size <= (1 << 24) && weight.num_rows <= (1 << 30),
          "matmul: a weight of more than 2^24 columns or 2^30 rows");
  GemvArguments arguments;
  arguments.x = static_cast<const unsigned char*>(x.data);
  arguments.weight = static_cast<const unsigned char*>(weight.data);
  arguments.bias = bias;
  arguments.y = y.data;
  arguments.x_pitch = x.stride * SizeOf(x.dtype);
  arguments.weight_pitch = weight.stride * SizeOf(weight.dtype);
  arguments.y_stride = y.stride;
  arguments.num_rows = static_cast<int>(y.num_rows);
  arguments.num_outputs = static_cast<int>(y.size);
  arguments.row_bytes = static_cast<int>(x.size * SizeOf(x.dtype));
  arguments.float32_output = y.dtype == kHeddleCudaFloat32;
  arguments.num_rounds = static_cast<int>(CeilDiv(arguments.row_bytes, kRoundBytes));
  return arguments;
}

}  // namespace

void Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  GemvArguments arguments = ArgumentsOf(op.x, op.weight, op.bias, op.y);
  DispatchFloat(op.x.dtype, [&]<typename T>() { LaunchGemv<T, false>(stream, arguments); });
}

void GatedGemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  GemvArguments arguments = ArgumentsOf(op.x, op.gate_up, op.bias, op.y);
  arguments.activation = op.activation;
  DispatchFloat(op.x.dtype, [&]<typename T>() { LaunchGemv<T, true>(stream, arguments); });
}

}  // namespace heddle::cuda
