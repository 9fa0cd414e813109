// The kernel of SkinnyMatmul and SkinnyGatedMatmul: y = x weight^T for up to 64 rows of x, one pass over the weights at
// the speed of device memory, on Hopper.
//
// Why wgmma, x as its 64 rows and weights as its columns. Device memory delivers about 13 bytes of weights a clock to
// each of 132 multiprocessors; what else happens in a clock must fit beside that. The columns of a product are a
// multiple of 8, so that the weight rows of a model's narrow matrices divide among all blocks: 48 each for 6,144, 32
// for 4,096. A product of 64 x 48 x 16 reads 2 KiB of x and 1.5 KiB of weights from shared memory, which moves 128
// bytes a clock: with the copies' writes 48 bytes a clock at 16 rows. That less than 64 rows of x waste products is of
// no matter, as they are a fifth of what the tensor cores could do. Nothing is split along k, and nothing is left to be
// added.
//
// What x costs. Each tile copies all of x from L2: beside 48 weight rows 16 rows are a third of the weights' bytes, 64
// rows 1.3 times. L2 delivers twice what device memory does, but late, as it is asked behind all weights that are on
// their way: so x is asked for as many steps ahead as the weights are, in one ring. Blocks of a cluster that copied x
// for each other, or a ring of its own with fewer steps, were up to a fifth slower, waiting for x.
//
// The ring takes nearly all of a multiprocessor. The block of the next product starts when the one before it on the
// same multiprocessor has ended, whatever the others still do, and asks for its weights while kernels in between work.
#pragma once

#include <type_traits>

#include "common/hopper.cuh"
#include "common/launch.h"
#include "common/numeric.cuh"
#include "common/shared_memory.cuh"
#include "common/wgmma.cuh"
#include "common/wgmma_quantised.cuh"
#include "gemm/activation.cuh"
#include "gemm/skinny_parameters.h"

namespace heddle::cuda {

inline constexpr int kSkinnyConsumers = 128;
inline constexpr int kSkinnyThreads = kSkinnyConsumers + 32;

struct SkinnyBarriers {
  hopper::Barrier full[kMaxSkinnyStages];
  hopper::Barrier empty[kMaxSkinnyStages];
};

constexpr int SkinnyStageBytes(int box_rows, int columns) { return (box_rows + columns) * kStepRowBytes; }

// Shared memory of a block: the ring, then barriers. Products read 64 rows of x whatever its number is: what they find
// beyond the last one, weights, ends up in rows of sums that nobody looks at.
constexpr int SkinnySharedBytes(int stages, int box_rows, int columns) {
  constexpr int kAlignment = 1024;
  return kAlignment + stages * SkinnyStageBytes(box_rows, columns) + static_cast<int>(sizeof(SkinnyBarriers));
}

// Of x and weights of T, or of int8 with scales.
template <typename T, int kColumns, bool kGated>
class SkinnyBlock {
 public:
  __device__ __forceinline__ SkinnyBlock(const SkinnyParameters& p, uint8_t* shared)
      : p_(p),
        ring_(shared),
        stage_bytes_(SkinnyStageBytes(p.box_rows, kColumns)),
        barriers_(*reinterpret_cast<SkinnyBarriers*>(shared + p.num_stages * stage_bytes_)) {}

  // By one thread, before others of the block do anything.
  __device__ __forceinline__ void InitBarriers() {
    for (int i = 0; i < p_.num_stages; ++i) {
      hopper::InitBarrier(&barriers_.full[i], 1);
      hopper::InitBarrier(&barriers_.empty[i], kSkinnyConsumers / 32);
    }
    hopper::FenceBarrierInit();
    hopper::FenceAsyncProxy();
  }

  // By one thread. Weights before the kernels ahead have ended, as many as the ring holds.
  __device__ __forceinline__ void Produce() {
    const uint64_t policy = ReadOncePolicy();
    const int tiles = (p_.num_tiles - 1 - static_cast<int>(blockIdx.x)) / static_cast<int>(gridDim.x) + 1;
    const int total = tiles * p_.num_steps;
    const int early = min(p_.num_stages, total);
    Position weight{static_cast<int>(blockIdx.x)};
    for (int i = 0; i < early; ++i) {
      CopyWeights(weight, policy);
      Advance(weight);
    }
    WaitForPrevious();
    Position x{static_cast<int>(blockIdx.x)};
    for (int i = 0; i < early; ++i) {
      CopyX(x);
      Advance(x);
    }
    for (int i = early; i < total; ++i) {
      hopper::Wait(&barriers_.empty[x.stage], x.parity ^ 1);
      CopyWeights(x, policy);
      CopyX(x);
      Advance(x);
    }
  }

  // By the consumer warps.
  __device__ __forceinline__ void Consume() {
    Position position{static_cast<int>(blockIdx.x)};
    while (position.tile < p_.num_tiles) {
      const int tile = position.tile;
      Sums sums = {};
      int last_stage = 0;
      for (int step = 0; step < p_.num_steps; ++step) {
        hopper::Wait(&barriers_.full[position.stage], position.parity);
        hopper::BeginProducts();
        Multiply(sums, position.stage);
        hopper::CommitProducts();
        if (step > 0) {
          hopper::WaitForProducts<1>();
          Release(last_stage);
        }
        last_stage = position.stage;
        Advance(position);
      }
      hopper::WaitForProducts<0>();
      Release(last_stage);
      hopper::Settle(sums);
      Finish(sums, tile);
    }
  }

 private:
  static constexpr bool kInt8 = std::is_same_v<T, int8_t>;
  static constexpr int kBoxElements = kSkinnyBoxRowBytes / static_cast<int>(sizeof(T));
  static constexpr int kTiles = kColumns / 8;
  static constexpr int kOutputs = kGated ? kColumns / 2 : kColumns;
  static constexpr int kWeightBoxBytes = kColumns * kSkinnyBoxRowBytes;
  static_assert(!kGated || kTiles % 2 == 0);
  static_assert(kStepBoxes * kWeightBoxBytes >= 64 * kSkinnyBoxRowBytes);  // see SkinnySharedBytes

  // Element e of sums[j], of lane l in warp w: row 16 w + l / 4 + e / 2 * 8 of x, column 8 j + l % 4 * 2 + e % 2.
  using Sum = std::conditional_t<kInt8, int32_t, float>;
  using Sums = Sum[kTiles][4];

  // A stage of the ring, the parity of the phase that its barriers are in, and what it holds.
  struct Position {
    int tile;
    int step = 0;
    int stage = 0;
    uint32_t parity = 0;
  };

  __device__ __forceinline__ void Advance(Position& position) const {
    if (++position.step == p_.num_steps) {
      position.step = 0;
      position.tile += gridDim.x;
    }
    if (++position.stage == p_.num_stages) {
      position.stage = 0;
      position.parity ^= 1;
    }
  }

  __device__ __forceinline__ void CopyWeights(const Position& position, uint64_t policy) {
    hopper::Barrier* const full = &barriers_.full[position.stage];
    const int first = position.tile * kOutputs;
    hopper::ArriveAndExpect(full, stage_bytes_);
#pragma unroll
    for (int box = 0; box < kStepBoxes; ++box) {
      uint8_t* const to = ring_ + position.stage * stage_bytes_ + p_.box_rows * kStepRowBytes + box * kWeightBoxBytes;
      const int column = (position.step * kStepBoxes + box) * kBoxElements;
      hopper::CopyBoxWith(policy, to, p_.weight, full, column, first);
      if constexpr (kGated) {
        hopper::CopyBoxWith(policy, to + kWeightBoxBytes / 2, p_.weight, full, column, p_.num_outputs + first);
      }
    }
  }

  __device__ __forceinline__ void CopyX(const Position& position) {
    hopper::Barrier* const full = &barriers_.full[position.stage];
#pragma unroll
    for (int box = 0; box < kStepBoxes; ++box) {
      uint8_t* const to = ring_ + position.stage * stage_bytes_ + box * p_.box_rows * kSkinnyBoxRowBytes;
      hopper::CopyBox(to, p_.x, full, (position.step * kStepBoxes + box) * kBoxElements, 0);
    }
  }

  __device__ __forceinline__ void Multiply(Sums& sums, int stage) const {
    constexpr int kBytesOfProduct = 32;
    const int x_box_bytes = p_.box_rows * kSkinnyBoxRowBytes;
    const uint32_t from = SharedAddress(ring_) + stage * stage_bytes_;
    const uint64_t x = hopper::Describe(from);
    const uint64_t weights = hopper::Describe(from + kStepBoxes * x_box_bytes);
#pragma unroll
    for (int box = 0; box < kStepBoxes; ++box) {
#pragma unroll
      for (int i = 0; i < kSkinnyBoxRowBytes / kBytesOfProduct; ++i) {
        const int offset = i * kBytesOfProduct / 16;
        const uint64_t left = x + box * x_box_bytes / 16 + offset;
        const uint64_t right = weights + box * kWeightBoxBytes / 16 + offset;
        if constexpr (kInt8) {
          hopper::MultiplyAddTransposed(sums, left, right);
        } else {
          hopper::MultiplyTransposed<T, true>(sums, left, right);
        }
      }
    }
  }

  __device__ __forceinline__ void Release(int stage) {
    if (threadIdx.x % 32 == 0) hopper::Arrive(&barriers_.empty[stage]);
  }

  __device__ __forceinline__ void Finish(const Sums& sums, int tile) const {
    constexpr int kOutputTiles = kOutputs / 8;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int high = 0; high < 2; ++high) {
      const int row = static_cast<int>(threadIdx.x) / 32 * 16 + high * 8 + lane / 4;
      if (row >= p_.num_rows) continue;
#pragma unroll
      for (int j = 0; j < kOutputTiles; ++j) {
        const int output = tile * kOutputs + j * 8 + lane % 4 * 2;
        const Sum(&first)[4] = sums[j];
        const Sum(&second)[4] = sums[kGated ? j + kOutputTiles : j];
        StorePair(row, output, PairOf(first, high), PairOf(second, high));
      }
    }
  }

  // Outputs `output`, which is even, and the one after it. `up` is of gated products only.
  __device__ __forceinline__ void StorePair(int row, int output, float2 value, float2 up) const {
    if (output >= p_.num_outputs) return;
    const bool both = output + 1 < p_.num_outputs;
    value.x = Value(row, output, value.x, up.x);
    if (both) value.y = Value(row, output + 1, value.y, up.y);
    const int64_t index = row * p_.y_stride + output;
    switch (p_.y_dtype) {
      case kHeddleCudaFloat32:
        return Store(static_cast<float*>(p_.y) + index, value, both);
      case kHeddleCudaFloat16:
        return Store(static_cast<__half*>(p_.y) + index, value, both);
      default:
        return Store(static_cast<__nv_bfloat16*>(p_.y) + index, value, both);
    }
  }

  static __device__ __forceinline__ float2 PairOf(const Sum (&sums)[4], int high) {
    return {static_cast<float>(sums[2 * high]), static_cast<float>(sums[2 * high + 1])};
  }

  __device__ __forceinline__ float Value(int row, int output, float value, float up) const {
    value = ScaledWithBias(row, output, value);
    if constexpr (!kGated) return value;
    return Activate(p_.activation, value) * ScaledWithBias(row, p_.num_outputs + output, up);
  }

  __device__ __forceinline__ float ScaledWithBias(int row, int weight_row, float value) const {
    if constexpr (kInt8) value = value * p_.row_scales[row] * p_.scales[weight_row];
    return p_.bias != nullptr ? value + p_.bias[weight_row] : value;
  }

  template <typename Y>
  static __device__ __forceinline__ void Store(Y* to, float2 value, bool both) {
    struct alignas(2 * sizeof(Y)) Pair {
      Y x, y;
    };
    if (both) {
      *reinterpret_cast<Pair*>(to) = {FromFloat<Y>(value.x), FromFloat<Y>(value.y)};
    } else {
      *to = FromFloat<Y>(value.x);
    }
  }

  const SkinnyParameters& p_;
  uint8_t* const ring_;
  const int stage_bytes_;
  SkinnyBarriers& barriers_;
};

template <typename T, int kColumns, bool kGated>
__global__ void __launch_bounds__(kSkinnyThreads, 1) SkinnyKernel(const __grid_constant__ SkinnyParameters p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t shared[];
  AllowNext();
  const uint32_t misalignment = SharedAddress(shared) % 1024;
  SkinnyBlock<T, kColumns, kGated> block(p, shared + (1024 - misalignment) % 1024);
  const bool produces = threadIdx.x == kSkinnyConsumers;
  if (produces) block.InitBarriers();
  __syncthreads();
  if (threadIdx.x < kSkinnyConsumers) {
    WaitForPrevious();
    block.Consume();
  } else if (produces) {
    block.Produce();
  }
#elif defined(__CUDA_ARCH__)
  __trap();  // built for compute capability 9.0, but without the instructions that only 9.0a has
#endif
}

}  // namespace heddle::cuda
