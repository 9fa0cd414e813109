// One row of x in shared memory as int8 digits, for products with int8 weights as they are: mma of int8 takes a stage a
// fifth of the instructions that making floats of weights takes, and has eight columns anyway, of which one row would
// use one.
//
// Each warp has the columns that it multiplies by to itself. It need not wait for others, nor they for it.
#pragma once

#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"
#include "gemm/gemv_sums.cuh"
#include "quant/quantized_piece.cuh"

namespace heddle::cuda {

// An element goes in as the nearest multiple of 2^-21 times the largest power of two among the warp's columns: what
// float32 loses of sums in which the largest counts, but more where its weight is next to nothing.
//
// kUnitColumns: of x, what belongs to 16 bytes of weights.
template <typename T, int kUnitColumns>
class DigitX {
  static_assert(sizeof(T) == 2);
  static constexpr int kChunkColumns = kChunkUnits * kUnitColumns;
  static constexpr int kChunkPieces = kChunkColumns / kPieceColumns;
  static constexpr int kMaxHeld = 4;  // pieces of a lane

 public:
  using Sum = float;
  static constexpr bool kInSlabs = false;

  // What a warp's chunk is multiplied by.
  struct Chunk {
    SharedX digits;  // each a row
    float unit;

    __device__ __forceinline__ void Next() { digits.address += kChunkColumns; }
  };

  static bool Divide(int max_bytes, bool whole, GemvArguments& arguments) {
    if (!whole || arguments.num_rows > 1 || arguments.x_row_bytes % 16 != 0) return false;
    if (arguments.num_rounds * kChunkPieces > kMaxHeld * 32) return false;
    arguments.num_slabs = 1;
    arguments.x_shared_pitch = arguments.num_rounds * kChunkColumns + kPaddingBytes;
    return SharedBytes(arguments) <= max_bytes;
  }

  static int SharedBytes(const GemvArguments& arguments) { return kGemvWarps * kDigits * arguments.x_shared_pitch; }

  // Reads nothing of x.
  __device__ __forceinline__ DigitX(const GemvArguments& arguments, unsigned char* memory)
      : arguments_(arguments), digits_(memory + Warp() * kDigits * arguments.x_shared_pitch) {}

  __device__ __forceinline__ int Begin(int slab) const { return slab * arguments_.num_rounds; }

  // By all lanes of a warp. Instructions come from memory the first time: what is few has little code.
  __device__ __forceinline__ void LoadFirst() {
    if (NumPieces() <= 32) {
      Load<1>();
    } else {
      Load<kMaxHeld>();
    }
    __syncwarp();
  }

  // Of the warp's first chunk.
  __device__ __forceinline__ Chunk First() const {
    return {{SharedAddress(digits_), arguments_.x_shared_pitch, kDigits}, unit_};
  }

  __device__ __forceinline__ float ValueOf(float sum, int) const { return sum; }

 private:
  using Piece = QuantizedPiece<T>;
  // Digits of the same columns lie in different banks.
  static constexpr int kPaddingBytes = 16;

  static __device__ __forceinline__ int Warp() { return threadIdx.x / 32; }
  // Of a warp, in the order of its chunks, and the lane's i-th.
  __device__ __forceinline__ int NumPieces() const { return arguments_.num_rounds * kChunkPieces; }
  static __device__ __forceinline__ int PieceOf(int i) { return i * 32 + static_cast<int>(threadIdx.x) % 32; }

  template <int kHeld>
  __device__ __forceinline__ void Load() {
    Piece pieces[kHeld];
    uint32_t max_bits = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int chunk = PieceOf(i) / kChunkPieces * kGemvWarps + Warp();
      const int column = chunk * kChunkColumns + PieceOf(i) % kChunkPieces * kPieceColumns;
      pieces[i].LoadUnits(arguments_.x, column * static_cast<int>(sizeof(T)), arguments_.x_row_bytes);
    }
#pragma unroll
    for (const Piece& piece : pieces) max_bits = max(max_bits, piece.MaxBits());
    const DigitUnit unit = DigitUnitOf<T>(__reduce_max_sync(0xffffffffu, max_bits));
    unit_ = unit.value;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (PieceOf(i) >= NumPieces()) continue;
      uint4 digits[kDigits];
      pieces[i].ToDigits(unit.inverse, digits);
#pragma unroll
      for (int digit = 0; digit < kDigits; ++digit) {
        *reinterpret_cast<uint4*>(digits_ + digit * arguments_.x_shared_pitch + PieceOf(i) * kPieceColumns) =
            digits[digit];
      }
    }
  }

  const GemvArguments& arguments_;
  unsigned char* const digits_;  // the warp's, [kDigits, x_shared_pitch]
  float unit_ = 0;
};

}  // namespace heddle::cuda
