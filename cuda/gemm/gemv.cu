#include "gemm/gemv.h"

#include <algorithm>

#include "common/checks.h"
#include "common/rounding.h"
#include "gemm/gemv_kernel.cuh"

namespace heddle::cuda {
namespace {

// How a block's shared memory is divided: the first of these ways that a device has room for. A long ring takes nearly
// all of a multiprocessor. The block of the next product then starts when the one before it on the same multiprocessor
// has ended, whatever the others still do, and fills its ring while kernels in between work (attention, norms): all
// rings together hold what an H100 reads in 7 us, about as long as those take.
struct Division {
  int stages;       // of each warp's ring
  int max_x_bytes;  // of all rows of x, or of one slab where x is in slabs
  bool whole;
};
constexpr int kLongRing = 10;
constexpr int kMediumRing = 6;
constexpr int kShortRing = 3;  // for devices whose blocks have less than 100 KiB
constexpr Division kDivisions[] = {
    {kLongRing, 64 * 1024, true},  {kMediumRing, 128 * 1024, true}, {kMediumRing, 32 * 1024, false},
    {kShortRing, 64 * 1024, true}, {kShortRing, 17 * 1024, false},
};

int SharedBytes(const GemvArguments& arguments, const Division& division, int groups) {
  return RingBytes(division.stages) + XSharedBytes(arguments) + PartialSumsBytes(arguments, groups);
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
  }
  return GemvKernel<T, 2, kStages, kGated>;
}

template <typename T, bool kGated>
auto KernelFor(int stages, int groups) {
  switch (stages) {
    case kLongRing:
      return KernelFor<T, kLongRing, kGated>(groups);
    case kMediumRing:
      return KernelFor<T, kMediumRing, kGated>(groups);
    default:
      return KernelFor<T, kShortRing, kGated>(groups);
  }
}

template <typename T, bool kGated>
void LaunchGemv(const HeddleCudaStream& stream, GemvArguments& arguments) {
  for (const Division& division : kDivisions) {
    if (!DivideX(division, arguments)) continue;
    const int num_blocks = stream.properties.num_multiprocessors;
    // Low tiles spread evenly and read memory in order; but each tile reads x again where that does not stay.
    const int groups = kGated || arguments.num_slabs > 1 ? 2 : 1;
    const int shared_bytes = SharedBytes(arguments, division, groups);
    if (shared_bytes > stream.properties.shared_bytes_per_block) continue;

    arguments.num_tiles = static_cast<int>(CeilDiv(arguments.num_outputs, kGroupRows * (kGated ? 1 : groups)));
    const auto kernel = KernelFor<T, kGated>(division.stages, groups);
    AllowShared(kernel, shared_bytes);
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
  GemvArguments arguments = ArgumentsOf(op.x, op.weight.values, op.bias, op.y);
  DispatchFloat(op.x.dtype, [&]<typename T>() { LaunchGemv<T, false>(stream, arguments); });
}

void GatedGemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  GemvArguments arguments = ArgumentsOf(op.x, op.gate_up.values, op.bias, op.y);
  arguments.activation = op.activation;
  DispatchFloat(op.x.dtype, [&]<typename T>() { LaunchGemv<T, true>(stream, arguments); });
}

}  // namespace heddle::cuda
