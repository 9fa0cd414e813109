// The kernel of products with few rows of x: y = x weight^T, one pass over the weights at the speed of device memory.
//
// A persistent block takes every gridDim.x-th tile. Its warps share the tile's k, chunk by chunk, and add their sums in
// shared memory at the tile's end. Some blocks have a tile less than others, and multiprocessors read at different
// speeds; where one is done, the next product's block takes its place and keeps memory busy.
//
// A Form says how weights are stored:
//   T               the type of x, and of y unless that is float32
//   X               rows of x in shared memory (XSlabs, DigitX, QuantizedX)
//   Sums            of 16 weight rows in a warp's registers
//   kMetadataUnits  16 bytes of metadata beside a row's chunk
//   kScaled         whether sums are multiplied by a scale for each weight row
//   kTensorRing     whether the tensor memory accelerator copies weights, from compute capability 9.0 on
//   Otherwise       the form for what X does not take; a form that has none goes through x in parts
#pragma once

#include "common/launch.h"
#include "gemm/activation.cuh"
#include "gemm/gemv.h"
#include "gemm/gemv_ring.cuh"

namespace heddle::cuda {

// A scale and a bias for what the calling thread writes of a tile: one output of a row, of a gated product from two
// sums. They come from device memory, and so are asked for as early as a thread can.
template <bool kScaled, int kGroups, bool kGated>
class OutputTerms {
 public:
  static constexpr int kOutputs = kGated ? kGroupRows : kGroups * kGroupRows;
  static_assert(kGemvThreads / kOutputs >= kMaxGemvRows);

  // What the thread writes of `tile`: output Output(tile) of row Row(), unless there is no such row or output.
  static __device__ __forceinline__ int Row() { return static_cast<int>(threadIdx.x) / kOutputs; }
  static __device__ __forceinline__ int Output(int tile) {
    return tile * kOutputs + static_cast<int>(threadIdx.x) % kOutputs;
  }
  static __device__ __forceinline__ bool Writes(const GemvArguments& arguments, int tile) {
    return Row() < arguments.num_rows && Output(tile) < arguments.num_outputs;
  }

  __device__ __forceinline__ void Load(const GemvArguments& arguments, int tile) {
    if (!Writes(arguments, tile)) return;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const int index = i * arguments.num_outputs + Output(tile);
      if (kScaled) scales_[i] = __ldg(arguments.scales + index);
      if (arguments.bias != nullptr) biases_[i] = __ldg(arguments.bias + index);
    }
  }

  __device__ __forceinline__ float Apply(float sum, int i) const {
    return (kScaled ? sum * scales_[i] : sum) + biases_[i];
  }

 private:
  static constexpr int kSums = kGated ? 2 : 1;
  float scales_[kSums] = {};
  float biases_[kSums] = {};
};

template <typename T>
__device__ __forceinline__ void Store(const GemvArguments& arguments, int row, int output, float value) {
  const int64_t index = row * arguments.y_stride + output;
  if (arguments.float32_output) {
    static_cast<float*>(arguments.y)[index] = value;
  } else {
    static_cast<T*>(arguments.y)[index] = FromFloat<T>(value);
  }
}

// Adds the sums of all warps and writes the tile's outputs; `terms` become those of the block's next tile. `partial`
// holds, for each warp, [num_rows, kGroups * 16].
template <typename Form, int kGroups, bool kGated>
__device__ __forceinline__ void FinishTile(const GemvArguments& arguments, int tile, const typename Form::X& x,
                                           const typename Form::Sums (&sums)[kGroups],
                                           OutputTerms<Form::kScaled, kGroups, kGated>& terms,
                                           typename Form::X::Sum* partial) {
  using Sum = typename Form::X::Sum;
  constexpr int kTileRows = kGroups * kGroupRows;
  constexpr int kOutputs = OutputTerms<Form::kScaled, kGroups, kGated>::kOutputs;
  const int lane = threadIdx.x % 32;
  const int sums_per_warp = arguments.num_rows * kTileRows;

  __syncthreads();  // those of the tile before have been read
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    Sum mine[4];
    sums[group].Get(mine);
    const int row = lane % 4 * 2;
    Sum* const to = partial + threadIdx.x / 32 * sums_per_warp + row * kTileRows + group * kGroupRows + lane / 4;
    if (row < arguments.num_rows) {
      to[0] = mine[0];
      to[8] = mine[2];
    }
    if (row + 1 < arguments.num_rows) {
      to[kTileRows] = mine[1];
      to[kTileRows + 8] = mine[3];
    }
  }
  __syncthreads();

  if (!terms.Writes(arguments, tile)) return;
  const auto sum = [&](int i) {
    const Sum* const from =
        partial + terms.Row() * kTileRows + i * kGroupRows + static_cast<int>(threadIdx.x) % kOutputs;
    Sum total{};
#pragma unroll
    for (int warp = 0; warp < kGemvWarps; ++warp) total += from[warp * sums_per_warp];
    return terms.Apply(x.ValueOf(total, terms.Row()), i);
  };
  float value = sum(0);
  if constexpr (kGated) value = Activate(arguments.activation, value) * sum(1);
  Store<typename Form::T>(arguments, terms.Row(), terms.Output(tile), value);
  terms.Load(arguments, tile + static_cast<int>(gridDim.x));
}

template <typename Form, int kGroups, int kStages, bool kGated>
__global__ void __launch_bounds__(kGemvThreads, 2) GemvKernel(const __grid_constant__ GemvArguments arguments) {
  static_assert(!kGated || kGroups == 2);
  using Ring = WeightRing<Form, kGroups, kStages, kGated>;
  using X = typename Form::X;
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  unsigned char* const shared =
      shared_bytes +
      (Form::kTensorRing ? (kRingAlignment - SharedAddress(shared_bytes) % kRingAlignment) % kRingAlignment : 0);
  auto* const partial =
      reinterpret_cast<typename X::Sum*>(shared + RingMemory<Form::kMetadataUnits, kStages>::Bytes(Form::kTensorRing));
  unsigned char* const x_memory =
      reinterpret_cast<unsigned char*>(partial + kGemvWarps * arguments.num_rows * kGroups * kGroupRows);

  AllowNext();
  Ring ring(arguments, shared);
  X x(arguments, x_memory);
  OutputTerms<Form::kScaled, kGroups, kGated> terms;
  terms.Load(arguments, blockIdx.x);
  WaitForPrevious();
  x.LoadFirst();

  int stages_of_slab = 0;
  for (int tile = blockIdx.x; tile < arguments.num_tiles; tile += gridDim.x) {
    typename Form::Sums sums[kGroups];
    const int num_slabs = X::kInSlabs ? arguments.num_slabs : 1;
    for (int slab = 0; slab < num_slabs; ++slab) {
      const int begin = x.Begin(slab);
      const int end = x.Begin(slab + 1);
      if constexpr (X::kInSlabs) {
        if (arguments.num_slabs > 1) {
          if (stages_of_slab > 0) x.template Turn<Ring::kCopyGroups>(stages_of_slab);
          const bool last_of_tile = slab + 1 == arguments.num_slabs;
          const bool last_tile = static_cast<int>(tile + gridDim.x) >= arguments.num_tiles;
          if (!last_of_tile || !last_tile) x.Start(last_of_tile ? 0 : slab + 1);
          stages_of_slab = (end - begin) * kGroups;
        }
      }
      auto chunk = x.First();
#pragma unroll 1
      for (int round = begin; round < end; ++round) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          sums[group].Add(ring.Front(), chunk);
          ring.Pop();
        }
        chunk.Next();
      }
    }
    FinishTile<Form, kGroups, kGated>(arguments, tile, x, sums, terms, partial);
  }
}

}  // namespace heddle::cuda
