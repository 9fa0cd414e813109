#include "quant/marked_rows.h"

#include "common/launch.h"
#include "common/rounding.h"
#include "quant/quantized_piece.cuh"

namespace heddle::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kHeld = 2;  // pieces of a thread, read once: rows of 16,384 elements

struct MarkedRowsArguments {
  const unsigned char* x;
  unsigned char* marked;
  float* scales;
  int64_t x_pitch;       // bytes
  int64_t marked_pitch;  // bytes, a multiple of kPieceColumns
  int row_bytes;         // of x
  uint32_t outlier_bits;
};

// A row a block.
template <typename T>
__global__ void __launch_bounds__(kThreads) MarkedRowsKernel(const MarkedRowsArguments arguments) {
  __shared__ uint32_t shared_max;
  AllowNext();
  if (threadIdx.x == 0) shared_max = 0;
  __syncthreads();
  WaitForPrevious();

  const unsigned char* const row = arguments.x + blockIdx.x * arguments.x_pitch;
  const int num_pieces = static_cast<int>(arguments.marked_pitch) / kPieceColumns;
  QuantizedPiece<T> pieces[kHeld];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      pieces[i] = {};
      pieces[i].Load(row, (first + i * kThreads) * kPieceColumns * 2, arguments.row_bytes);
    }
  };
  uint32_t most = 0;
#pragma unroll 1
  for (int first = threadIdx.x; first < num_pieces; first += kHeld * kThreads) {
    load(first);
#pragma unroll
    for (const auto& piece : pieces) most = max(most, piece.MaxInlierBits(piece.MaxBits(), arguments.outlier_bits));
  }
  most = __reduce_max_sync(0xffffffffu, most);
  if (threadIdx.x % 32 == 0) atomicMax(&shared_max, most);
  __syncthreads();
  const float inverse = InverseScaleOf<T>(shared_max);
  if (threadIdx.x == 0) arguments.scales[blockIdx.x] = ScaleOf<T>(shared_max);

#pragma unroll 1
  for (int first = threadIdx.x; first < num_pieces; first += kHeld * kThreads) {
    if (num_pieces > kHeld * kThreads) load(first);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const QuantizedPiece<T> inliers = pieces[i].InliersOf(arguments.outlier_bits);
      uint4 quantized = inliers.Quantize(inverse);
      const auto mark = [&](int pair) {
        const uint32_t low = InlierMask(pieces[i].words[pair], arguments.outlier_bits);
        const uint32_t high = InlierMask(pieces[i].words[pair + 1], arguments.outlier_bits);
        return ~__byte_perm(low, high, 0x6420) & 0x80808080u;
      };
      quantized.x |= mark(0);
      quantized.y |= mark(2);
      quantized.z |= mark(4);
      quantized.w |= mark(6);
      const int index = first + i * kThreads;
      if (index < num_pieces) {
        *reinterpret_cast<uint4*>(arguments.marked + blockIdx.x * arguments.marked_pitch + index * kPieceColumns) =
            quantized;
      }
    }
  }
}

}  // namespace

uint32_t OutlierBits(HeddleCudaDType dtype, float threshold) {
  if (dtype == kHeddleCudaFloat16) return __half_as_ushort(__float2half_ru(threshold));
  return __bfloat16_as_ushort(__float2bfloat16_ru(threshold));
}

void MarkRows(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, GemvArguments& arguments) {
  constexpr int64_t kScaleBytes = 256;
  arguments.marked_pitch = RoundUp(x.size, kPieceColumns);
  auto* const scratch = static_cast<unsigned char*>(stream.Scratch(kScaleBytes + x.num_rows * arguments.marked_pitch));
  arguments.marked_scales = reinterpret_cast<const float*>(scratch);
  arguments.marked = scratch + kScaleBytes;
  const MarkedRowsArguments marked_rows = {.x = arguments.x,
                                           .marked = scratch + kScaleBytes,
                                           .scales = reinterpret_cast<float*>(scratch),
                                           .x_pitch = arguments.x_pitch,
                                           .marked_pitch = arguments.marked_pitch,
                                           .row_bytes = arguments.x_row_bytes,
                                           .outlier_bits = arguments.outlier_bits};
  const auto kernel = x.dtype == kHeddleCudaFloat16 ? MarkedRowsKernel<__half> : MarkedRowsKernel<__nv_bfloat16>;
  Launch(stream, kernel, dim3(static_cast<unsigned>(x.num_rows)), dim3(kThreads), 0, marked_rows);
}

}  // namespace heddle::cuda
