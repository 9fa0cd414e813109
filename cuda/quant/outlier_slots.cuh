// Outliers of x in a block's shared memory, as they were in x.
#pragma once

#include <algorithm>

#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"
#include "gemm/gemv_sums.cuh"
#include "quant/quantized_piece.cuh"

namespace heddle::cuda {

// kUnitColumns: of x, what belongs to 16 bytes of weights. A unit with outliers of any row gets a slot, where all rows'
// outliers of it lie among zeros; where slots have run out, a warp fetches them from x each time it needs them.
//
// arguments.num_outlier_slots says how many there are; where it is negative there are no outliers, and Claim, Keep,
// FetchAll and Of are not called.
template <typename T, int kUnitColumns>
class OutlierSlots {
  static constexpr int kRowBytes = kUnitColumns * 2;

 public:
  static constexpr int kUnitPieces = kUnitColumns / kPieceColumns;

  // Of shared memory in `max_bytes`: the number of slots, or, where not even what goes with them fits, -1.
  static int MaxSlots(int max_bytes, const GemvArguments& arguments) {
    const int left = max_bytes - SharedBytes(0, arguments);
    if (left < 0) return -1;
    const int num_units = arguments.num_rounds * kGemvWarps * kChunkUnits;
    return std::min({left / (arguments.num_rows * kRowBytes + 2), num_units, int{kNoSlot}});
  }
  static int SharedBytes(int num_slots, const GemvArguments& arguments) {
    return kCountBytes + arguments.num_rounds * kGemvWarps * (kChunkUnits * 2 + 1) +
           (kGemvWarps + num_slots) * arguments.num_rows * kRowBytes + num_slots * 2;
  }

  // By all threads of the block, which meet before they go on. `memory` lies on 16 bytes.
  __device__ __forceinline__ OutlierSlots(const GemvArguments& arguments, unsigned char* memory)
      : arguments_(arguments),
        num_claimed_(*reinterpret_cast<int*>(memory)),
        slot_of_unit_(reinterpret_cast<uint16_t*>(memory + kCountBytes)),
        masks_(memory + kCountBytes + NumChunks() * kChunkUnits * 2),
        slots_(masks_ + NumChunks()),
        unit_of_slot_(reinterpret_cast<uint16_t*>(slots_ + (kGemvWarps + arguments.num_outlier_slots) * SlotBytes())) {
    if (!any()) return;
    if (threadIdx.x == 0) num_claimed_ = 0;
    const int bytes = NumChunks() + (kGemvWarps + arguments.num_outlier_slots) * SlotBytes();
#pragma unroll 1
    for (int i = threadIdx.x * 4; i < bytes; i += kGemvThreads * 4) *reinterpret_cast<uint32_t*>(masks_ + i) = 0;
  }

  // Whether there may be outliers at all.
  __device__ __forceinline__ bool any() const { return arguments_.num_outlier_slots >= 0; }

  // A bit for each of the chunk's units that has some.
  __device__ __forceinline__ uint32_t UnitsOf(int chunk) const { return any() ? masks_[chunk] : 0; }

  // By any thread that finds outliers in piece `index` of some row. Keep and FetchAll come after a barrier.
  __device__ __forceinline__ void Claim(int index) {
    const int unit = index / kUnitPieces;
    const uint32_t bit = 1u << unit % 32;
    if ((atomicOr(reinterpret_cast<uint32_t*>(masks_) + unit / 32, bit) & bit) != 0) return;
    const int slot = atomicAdd(&num_claimed_, 1);
    const bool left = slot < arguments_.num_outlier_slots;
    slot_of_unit_[unit] = left ? static_cast<uint16_t>(slot) : kNoSlot;
    if (left) unit_of_slot_[slot] = static_cast<uint16_t>(unit);
  }

  // Puts the outliers of a piece into its unit's slot, if it has one.
  __device__ __forceinline__ void Keep(const QuantizedPiece<T>& piece, int row, int index) {
    if (slot_of_unit_[index / kUnitPieces] != kNoSlot) Put(piece, row, index, slot_of_unit_[index / kUnitPieces]);
  }

  // The same for all rows of all units that have one, from x itself, by all threads of the block: each waits for L2.
  __device__ __forceinline__ void FetchAll() {
    const int slot_pieces = arguments_.num_rows * kUnitPieces;
    const int num_pieces = min(num_claimed_, arguments_.num_outlier_slots) * slot_pieces;
    for (int i = threadIdx.x; i < num_pieces; i += kGemvThreads) {
      const int slot = i / slot_pieces;
      const int row = i / kUnitPieces % arguments_.num_rows;
      const int index = unit_of_slot_[slot] * kUnitPieces + i % kUnitPieces;
      QuantizedPiece<T> piece;
      piece.Load(arguments_.x + row * arguments_.x_pitch, index * kPieceColumns * 2, arguments_.x_row_bytes);
      Put(piece, row, index, slot);
    }
  }

  // Of a unit that has some, by all lanes of a warp. Until its next call.
  __device__ __forceinline__ SharedX Of(int unit) const {
    const uint16_t slot = slot_of_unit_[unit];
    unsigned char* const outliers = slots_ + (slot == kNoSlot ? threadIdx.x / 32 : kGemvWarps + slot) * SlotBytes();
    if (slot == kNoSlot) {
      for (int i = threadIdx.x % 32; i < arguments_.num_rows * kUnitColumns; i += 32) {
        const int offset = (unit * kUnitColumns + i % kUnitColumns) * 2;
        uint32_t element = 0;
        if (offset < arguments_.x_row_bytes) {
          element = __ldcg(
              reinterpret_cast<const unsigned short*>(arguments_.x + i / kUnitColumns * arguments_.x_pitch + offset));
        }
        const uint32_t outlier = element & ~InlierMask(element, arguments_.outlier_bits);
        reinterpret_cast<uint16_t*>(outliers)[i] = static_cast<uint16_t>(outlier);
      }
      __syncwarp();
    }
    return {SharedAddress(outliers), kRowBytes, arguments_.num_rows};
  }

 private:
  static constexpr uint16_t kNoSlot = 0xffff;
  static constexpr int kCountBytes = 16;

  __device__ __forceinline__ int NumChunks() const { return arguments_.num_rounds * kGemvWarps; }
  __device__ __forceinline__ int SlotBytes() const { return arguments_.num_rows * kRowBytes; }

  __device__ __forceinline__ void Put(const QuantizedPiece<T>& piece, int row, int index, int slot) {
    const QuantizedPiece<T> inliers = piece.InliersOf(arguments_.outlier_bits);
    auto* const to = reinterpret_cast<uint32_t*>(slots_ + (kGemvWarps + slot) * SlotBytes() + row * kRowBytes +
                                                 index % kUnitPieces * kPieceColumns * 2);
#pragma unroll
    for (int i = 0; i < kPieceColumns / 2; ++i) to[i] = piece.words[i] ^ inliers.words[i];
  }

  const GemvArguments& arguments_;
  int& num_claimed_;  // slots that were asked for
  uint16_t* const slot_of_unit_;
  unsigned char* const masks_;  // of each chunk, a bit a unit
  unsigned char* const slots_;  // one for each warp where slots have run out; then num_outlier_slots
  uint16_t* const unit_of_slot_;
};

}  // namespace heddle::cuda
