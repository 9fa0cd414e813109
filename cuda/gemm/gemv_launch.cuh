// Launching GemvKernel for a form of weights.
#pragma once

#include <algorithm>

#include "common/checks.h"
#include "common/rounding.h"
#include "common/tensor_map.h"
#include "gemm/gemv_kernel.cuh"

namespace heddle::cuda {

// How a block's shared memory is divided: the first of these ways that a device has room for. A long ring takes nearly
// all of a multiprocessor. The block of the next product then starts when the one before it on the same multiprocessor
// has ended, whatever the others still do, and fills its ring while kernels in between work (attention, norms): all
// rings together hold what an H100 reads in 7 us, about as long as those take.
struct GemvDivision {
  int ring_bytes;
  int max_x_bytes;
  bool whole;  // x, or it is in slabs
};
inline constexpr int kLongRingBytes = 160 * 1024;
inline constexpr int kMediumRingBytes = 96 * 1024;
inline constexpr int kShortRingBytes = 48 * 1024;  // for devices whose blocks have less than 100 KiB
inline constexpr GemvDivision kGemvDivisions[] = {
    {kLongRingBytes, 64 * 1024, true},  {kMediumRingBytes, 128 * 1024, true}, {kMediumRingBytes, 64 * 1024, false},
    {kShortRingBytes, 64 * 1024, true}, {kShortRingBytes, 34 * 1024, false},
};

template <typename Form>
constexpr int StagesOf(int ring_bytes) {
  return ring_bytes / kGemvWarps / (kGroupBytes + Form::kMetadataUnits * kGroupRows * 16);
}

// Of all warps' rings, where stages take ring_bytes at most.
template <typename Form>
int RingBytes(int ring_bytes) {
  const auto of_stages = [&]<int kLimit>() {
    return RingMemory<Form::kMetadataUnits, StagesOf<Form>(kLimit)>::Bytes(Form::kTensorRing);
  };
  switch (ring_bytes) {
    case kLongRingBytes:
      return of_stages.template operator()<kLongRingBytes>();
    case kMediumRingBytes:
      return of_stages.template operator()<kMediumRingBytes>();
    default:
      return of_stages.template operator()<kShortRingBytes>();
  }
}

template <typename Form, int kStages, bool kGated>
auto GemvKernelFor(int groups) {
  if constexpr (!kGated) {
    if (groups == 1) return GemvKernel<Form, 1, kStages, false>;
  }
  return GemvKernel<Form, 2, kStages, kGated>;
}

template <typename Form, bool kGated>
auto GemvKernelFor(int ring_bytes, int groups) {
  switch (ring_bytes) {
    case kLongRingBytes:
      return GemvKernelFor<Form, StagesOf<Form>(kLongRingBytes), kGated>(groups);
    case kMediumRingBytes:
      return GemvKernelFor<Form, StagesOf<Form>(kMediumRingBytes), kGated>(groups);
    default:
      return GemvKernelFor<Form, StagesOf<Form>(kShortRingBytes), kGated>(groups);
  }
}

// False, and nothing was launched, where the device has too little shared memory for so many rows.
template <typename Form, bool kGated>
bool TryGemv(const HeddleCudaStream& stream, GemvArguments arguments) {
  arguments.num_rounds = static_cast<int>(CeilDiv(arguments.row_bytes, kRoundBytes));
  for (const GemvDivision& division : kGemvDivisions) {
    const auto fixed_bytes = [&](int groups) {
      return (Form::kTensorRing ? kRingAlignment : 0) + RingBytes<Form>(division.ring_bytes) +
             kGemvWarps * arguments.num_rows * groups * kGroupRows * static_cast<int>(sizeof(typename Form::X::Sum));
    };
    // Low tiles spread evenly and read memory in order; but each tile reads x again where that does not stay.
    const int groups = kGated || !division.whole ? 2 : 1;
    const int left = stream.properties.shared_bytes_per_block - fixed_bytes(groups);
    if (!Form::X::Divide(std::min(division.max_x_bytes, left), division.whole, arguments)) continue;

    arguments.num_tiles = static_cast<int>(CeilDiv(arguments.num_outputs, kGroupRows * (kGated ? 1 : groups)));
    const int shared_bytes = fixed_bytes(groups) + Form::X::SharedBytes(arguments);
    const auto kernel = GemvKernelFor<Form, kGated>(division.ring_bytes, groups);
    AllowShared(kernel, shared_bytes);
    Launch(stream, kernel, dim3(std::min(arguments.num_tiles, stream.properties.num_multiprocessors)),
           dim3(kGemvThreads), shared_bytes, arguments);
    return true;
  }
  return false;
}

// Of 16 rows of so many bytes each, of a matrix of bytes.
inline CUtensorMap StageMap(const void* data, int64_t row_bytes, int64_t num_rows, int64_t pitch, int box_bytes) {
  return TensorMapOf({.base = data,
                      .dtype = kHeddleCudaInt8,
                      .rank = 2,
                      .size = {static_cast<uint64_t>(row_bytes), static_cast<uint64_t>(num_rows)},
                      // A single row has any stride, but a map is asked for a good one.
                      .stride_bytes = {static_cast<uint64_t>(num_rows == 1 ? RoundUp(row_bytes, 16) : pitch)},
                      .box = {static_cast<uint32_t>(box_bytes), kGroupRows}});
}

// Arguments of a product without what TryGemv fills in.
template <typename Form>
GemvArguments GemvArgumentsOf(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight,
                              const float* bias, const HeddleCudaMatrix& y) {
  // Offsets within a row and numbers of rows are 32-bit in the kernel.
  Require(x.size <= (1 << 24) && weight.values.num_rows <= (1 << 30),
          "matmul: a weight of more than 2^24 columns or 2^30 rows");
  GemvArguments arguments;
  arguments.x = static_cast<const unsigned char*>(x.data);
  arguments.weight = static_cast<const unsigned char*>(weight.values.data);
  arguments.metadata = weight.metadata;
  arguments.scales = weight.scales;
  arguments.bias = bias;
  arguments.y = y.data;
  arguments.x_pitch = x.stride * SizeOf(x.dtype);
  arguments.weight_pitch = weight.values.stride * SizeOf(weight.values.dtype);
  arguments.metadata_pitch = weight.metadata_stride;
  arguments.y_stride = y.stride;
  arguments.num_rows = static_cast<int>(y.num_rows);
  arguments.num_outputs = static_cast<int>(y.size);
  arguments.row_bytes = static_cast<int>(weight.values.size * SizeOf(weight.values.dtype));
  arguments.x_row_bytes = static_cast<int>(x.size * SizeOf(x.dtype));
  arguments.float32_output = y.dtype == kHeddleCudaFloat32;
  if (Form::kTensorRing && stream.properties.major >= 9) {
    const int64_t num_rows = weight.values.num_rows;
    arguments.weight_map =
        StageMap(arguments.weight, arguments.row_bytes, num_rows, arguments.weight_pitch, kChunkBytes);
    if constexpr (Form::kMetadataUnits > 0) {
      arguments.metadata_map = StageMap(arguments.metadata, arguments.metadata_pitch, num_rows,
                                        arguments.metadata_pitch, Form::kMetadataUnits * 16);
    }
  }
  return arguments;
}

template <typename Form, bool kGated>
void LaunchGemv(const HeddleCudaStream& stream, const GemvArguments& arguments);

// The first half of the rows, then the others.
template <typename Form, bool kGated>
void LaunchGemvInHalves(const HeddleCudaStream& stream, const GemvArguments& arguments) {
  Require(arguments.num_rows > 1, "matmul: the device has too little shared memory");
  GemvArguments half = arguments;
  half.num_rows = arguments.num_rows / 2;
  LaunchGemv<Form, kGated>(stream, half);
  const int64_t y_bytes = arguments.float32_output ? 4 : static_cast<int64_t>(sizeof(typename Form::T));
  half.x += half.num_rows * arguments.x_pitch;
  if (half.marked != nullptr) {
    half.marked += half.num_rows * arguments.marked_pitch;
    half.marked_scales += half.num_rows;
  }
  half.y = static_cast<unsigned char*>(arguments.y) + half.num_rows * arguments.y_stride * y_bytes;
  half.num_rows = arguments.num_rows - half.num_rows;
  LaunchGemv<Form, kGated>(stream, half);
}

// A product by arguments that GemvArgumentsOf made, in as few launches as the device's shared memory allows.
template <typename Form, bool kGated>
void LaunchGemv(const HeddleCudaStream& stream, const GemvArguments& arguments) {
  if (TryGemv<Form, kGated>(stream, arguments)) return;
  if constexpr (requires { typename Form::Otherwise; }) {
    LaunchGemv<typename Form::Otherwise, kGated>(stream, arguments);
  } else {
    LaunchGemvInHalves<Form, kGated>(stream, arguments);
  }
}

// An op, whose arguments are first completed by complete(arguments).
template <typename Form, typename Complete>
void LaunchGemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op, const Complete& complete) {
  GemvArguments arguments = GemvArgumentsOf<Form>(stream, op.x, op.weight, op.bias, op.y);
  complete(arguments);
  LaunchGemv<Form, false>(stream, arguments);
}
template <typename Form, typename Complete>
void LaunchGemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op, const Complete& complete) {
  GemvArguments arguments = GemvArgumentsOf<Form>(stream, op.x, op.gate_up, op.bias, op.y);
  arguments.activation = op.activation;
  complete(arguments);
  LaunchGemv<Form, true>(stream, arguments);
}
template <typename Form, typename Op>
void LaunchGemv(const HeddleCudaStream& stream, const Op& op) {
  LaunchGemv<Form>(stream, op, [](GemvArguments&) {});
}

}  // namespace heddle::cuda
