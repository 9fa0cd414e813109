// Rows of x in shared memory as int8, each with a scale, and what is an outlier as it was: whole, once for all warps of
// a block, made from x in device memory.
//
// Each block quantises x for itself: that costs a barrier more than copying it, where a kernel ahead would cost a
// launch that everything waits for.
#pragma once

#include "common/numeric.cuh"
#include "common/rounding.h"
#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"
#include "gemm/gemv_sums.cuh"

namespace heddle::cuda {

// What a warp adds up for an output: int8 products, and products of outliers.
struct QuantizedSum {
  int32_t inliers;
  float outliers;

  __device__ __forceinline__ QuantizedSum& operator+=(const QuantizedSum& other) {
    inliers += other.inliers;
    outliers += other.outliers;
    return *this;
  }
};

// kUnitColumns: of x, what belongs to 16 bytes of weights. A unit with outliers of any row gets a slot, where all rows'
// outliers of it lie among zeros; where slots have run out, a warp fetches them from x each time it needs them.
template <typename T, int kUnitColumns>
class QuantizedX {
  static_assert(sizeof(T) == 2);
  static constexpr int kChunkColumns = kChunkUnits * kUnitColumns;
  static constexpr int kSlotRowBytes = kUnitColumns * 2;

 public:
  using Sum = QuantizedSum;
  static constexpr bool kInSlabs = false;

  // What a warp's chunk is multiplied by.
  struct Chunk {
    const QuantizedX& x;
    SharedX quantized;
    int index;

    __device__ __forceinline__ void Next() {
      quantized.address += kGemvWarps * kChunkColumns;
      index += kGemvWarps;
    }
    // A bit each.
    __device__ __forceinline__ uint32_t UnitsWithOutliers() const {
      return x.arguments_.num_outlier_slots < 0 ? 0 : x.masks_[index];
    }
    // Of one of those, called by all lanes. Until its next call.
    __device__ __forceinline__ SharedX OutliersOf(int unit) const { return x.OutliersOf(index * kChunkUnits + unit); }
  };

  static bool Divide(int max_bytes, bool whole, GemvArguments& arguments) {
    if (!whole) return false;
    const int num_chunks = arguments.num_rounds * kGemvWarps;
    arguments.num_slabs = 1;
    arguments.x_shared_pitch = num_chunks * kChunkColumns + kPaddingBytes;
    arguments.num_outlier_slots = -1;
    if (arguments.outlier_bits < kInfinity) arguments.num_outlier_slots = 0;
    const int left = max_bytes - SharedBytes(arguments);
    if (left < 0) return false;
    if (arguments.num_outlier_slots == 0) {
      const int slot_bytes = arguments.num_rows * kSlotRowBytes;
      // 2^16 - 1 says that a unit has none.
      arguments.num_outlier_slots = std::min({left / slot_bytes, num_chunks * kChunkUnits, (1 << 16) - 1});
    }
    return true;
  }

  static int SharedBytes(const GemvArguments& arguments) {
    const int quantized_bytes = kRowsBytes + arguments.num_rows * arguments.x_shared_pitch;
    if (arguments.num_outlier_slots < 0) return quantized_bytes;
    const int num_chunks = arguments.num_rounds * kGemvWarps;
    return quantized_bytes + num_chunks * kChunkTableBytes +
           (kGemvWarps + arguments.num_outlier_slots) * arguments.num_rows * kSlotRowBytes;
  }

  // Reads nothing of x.
  __device__ __forceinline__ QuantizedX(const GemvArguments& arguments, unsigned char* memory)
      : arguments_(arguments),
        rows_(*reinterpret_cast<Rows*>(memory)),
        quantized_(memory + kRowsBytes),
        slot_of_unit_(reinterpret_cast<uint16_t*>(quantized_ + arguments.num_rows * arguments.x_shared_pitch)),
        masks_(reinterpret_cast<unsigned char*>(slot_of_unit_ + NumChunks() * kChunkUnits)),
        slots_(masks_ + NumChunks()) {
    if (threadIdx.x < kMaxRows) rows_.max_bits[threadIdx.x] = 0;
    if (threadIdx.x == 0) rows_.num_slots = 0;
    if (arguments.num_outlier_slots >= 0) {
      const int slots_bytes = (kGemvWarps + arguments.num_outlier_slots) * SlotBytes();
      for (int i = threadIdx.x * 4; i < NumChunks() + slots_bytes; i += kGemvThreads * 4) {
        *reinterpret_cast<uint32_t*>(masks_ + i) = 0;
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ int Begin(int slab) const { return slab * arguments_.num_rounds; }

  // By all threads of the block.
  __device__ __forceinline__ void LoadFirst() {
    // A task is 32 pieces of a row, 16 columns each, a lane one.
    const int row_tasks = arguments_.num_rounds * kGemvWarps * kChunkColumns / (32 * kPieceColumns);
    const int num_tasks = arguments_.num_rows * row_tasks;
    const int warp = threadIdx.x / 32;
    // What a thread can hold is read once. Of 14,336 elements that is all.
    constexpr int kHeld = 4;
    Piece pieces[kHeld];
    const bool held = num_tasks <= kHeld * kGemvWarps;

    const auto for_tasks = [&](bool load, const auto& body) {
      for (int first = warp; first < num_tasks; first += kHeld * kGemvWarps) {
        if (load) {
#pragma unroll
          for (int i = 0; i < kHeld; ++i) {
            const int task = first + i * kGemvWarps;
            if (task < num_tasks) pieces[i] = Load(task / row_tasks, task % row_tasks);
          }
        }
#pragma unroll
        for (int i = 0; i < kHeld; ++i) {
          const int task = first + i * kGemvWarps;
          if (task < num_tasks) body(pieces[i], task / row_tasks, task % row_tasks);
        }
      }
    };
    for_tasks(true, [&](const Piece& piece, int row, int task) { Survey(piece, row, task); });
    __syncthreads();
    if (threadIdx.x < arguments_.num_rows) rows_.scales[threadIdx.x] = ScaleOf(rows_.max_bits[threadIdx.x]);
    for_tasks(!held, [&](const Piece& piece, int row, int task) { Quantize(piece, row, task); });
    __syncthreads();
  }

  // Of the warp's first chunk.
  __device__ __forceinline__ Chunk First() const {
    const int warp = threadIdx.x / 32;
    return {*this,
            {SharedAddress(quantized_) + warp * kChunkColumns, arguments_.x_shared_pitch, arguments_.num_rows},
            warp};
  }

  __device__ __forceinline__ float ValueOf(const QuantizedSum& sum, int row) const {
    return fmaf(static_cast<float>(sum.inliers), rows_.scales[row], sum.outliers);
  }

 private:
  static constexpr int kMaxRows = 8;
  static constexpr int kPaddingBytes = 16;
  static constexpr int kPieceColumns = 16;
  static constexpr uint32_t kInfinity = std::is_same_v<T, __half> ? 0x7c00 : 0x7f80;
  static constexpr uint32_t kNotFinite = 0xffff;  // among max_bits
  static constexpr uint16_t kNoSlot = 0xffff;
  static constexpr int kChunkTableBytes = kChunkUnits * 2 + 1;

  struct Rows {
    uint32_t max_bits[kMaxRows];  // of inliers
    float scales[kMaxRows];
    int num_slots;  // that were asked for
  };
  static constexpr int kRowsBytes = 80;
  static_assert(sizeof(Rows) <= kRowsBytes && kRowsBytes % 16 == 0);

  struct Piece {
    uint32_t words[kPieceColumns / 2];
  };

  __device__ __forceinline__ int NumChunks() const { return arguments_.num_rounds * kGemvWarps; }
  __device__ __forceinline__ int SlotBytes() const { return arguments_.num_rows * kSlotRowBytes; }

  // The lane's piece; zeros beyond the row. Past L1, which may hold what kernels before wrote over.
  __device__ __forceinline__ Piece Load(int row, int task) const {
    const int begin = PieceOf(task) * kPieceColumns * 2;
    const unsigned char* const from = arguments_.x + row * arguments_.x_pitch + begin;
    Piece piece{};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int left = arguments_.x_row_bytes - begin - half * 16;
      uint32_t* const words = piece.words + half * 4;
      if (left >= 16) {
        const uint4 loaded = __ldcg(reinterpret_cast<const uint4*>(from) + half);
        words[0] = loaded.x;
        words[1] = loaded.y;
        words[2] = loaded.z;
        words[3] = loaded.w;
      } else if (left > 0) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const auto* const element = reinterpret_cast<const unsigned short*>(from) + half * 8 + i;
          if (i * 2 < left) words[i / 2] |= uint32_t{__ldcg(element)} << (i % 2 * 16);
        }
      }
    }
    return piece;
  }

  static __device__ __forceinline__ int PieceOf(int task) { return task * 32 + threadIdx.x % 32; }

  // Without signs, floats compare as integers do.
  static __device__ __forceinline__ uint32_t MaxBits(const Piece& piece) {
    uint32_t most = 0;
#pragma unroll
    for (const uint32_t word : piece.words) most = __vmaxs2(most, word & 0x7fff7fffu);
    return max(most & 0xffffu, most >> 16);
  }

  // `word` without its outliers, and they without the rest.
  __device__ __forceinline__ uint32_t InliersOf(uint32_t word) const {
    const uint32_t low = (word & 0x7fffu) < arguments_.outlier_bits ? 0xffffu : 0;
    const uint32_t high = (word >> 16 & 0x7fffu) < arguments_.outlier_bits ? 0xffff0000u : 0;
    return word & (low | high);
  }

  // Takes the piece into account for its row's largest inlier, and claims a slot for its unit where it has outliers.
  __device__ __forceinline__ void Survey(const Piece& piece, int row, int task) {
    uint32_t bits = MaxBits(piece);
    if (bits >= arguments_.outlier_bits) {
      if (bits >= kInfinity) {
        bits = kNotFinite;
      } else {
        Piece inliers;
#pragma unroll
        for (int i = 0; i < kPieceColumns / 2; ++i) inliers.words[i] = InliersOf(piece.words[i]);
        bits = MaxBits(inliers);
      }
      if (arguments_.num_outlier_slots >= 0) ClaimSlot(PieceOf(task) * kPieceColumns / kUnitColumns);
    }
    bits = __reduce_max_sync(0xffffffffu, bits);
    if (threadIdx.x % 32 == 0) atomicMax(&rows_.max_bits[row], bits);
  }

  __device__ __forceinline__ void ClaimSlot(int unit) {
    const uint32_t bit = 1u << unit % 32;
    if ((atomicOr(reinterpret_cast<uint32_t*>(masks_) + unit / 32, bit) & bit) != 0) return;
    const int slot = atomicAdd(&rows_.num_slots, 1);
    slot_of_unit_[unit] = slot < arguments_.num_outlier_slots ? static_cast<uint16_t>(slot) : kNoSlot;
  }

  static __device__ __forceinline__ float ValueOfBits(uint32_t bits) {
    return ToFloat(__builtin_bit_cast(T, static_cast<uint16_t>(bits)));
  }
  static __device__ __forceinline__ float ScaleOf(uint32_t max_bits) {
    return max_bits == kNotFinite ? __int_as_float(0x7fffffff) : __fdiv_rn(ValueOfBits(max_bits), 127.0f);
  }

  __device__ __forceinline__ void Quantize(const Piece& piece, int row, int task) {
    const uint32_t max_bits = rows_.max_bits[row];
    float inverse = __fdiv_rn(127.0f, ValueOfBits(max_bits));
    if (!(inverse <= 3.4e38f)) inverse = 0;

    const bool has_outliers = MaxBits(piece) >= arguments_.outlier_bits;
    uint32_t quantized[kPieceColumns / 4];
#pragma unroll
    for (int i = 0; i < kPieceColumns / 4; ++i) {
      uint32_t pairs[2];
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        uint32_t word = piece.words[i * 2 + pair];
        if (has_outliers) word = InliersOf(word);
        pairs[pair] =
            __byte_perm(Rint(ValueOfBits(word & 0xffffu), inverse), Rint(ValueOfBits(word >> 16), inverse), 0x0040);
      }
      quantized[i] = __byte_perm(pairs[0], pairs[1], 0x5410);
    }
    const int index = PieceOf(task);
    *reinterpret_cast<uint4*>(quantized_ + row * arguments_.x_shared_pitch + index * kPieceColumns) = {
        quantized[0], quantized[1], quantized[2], quantized[3]};

    if (!has_outliers || arguments_.num_outlier_slots < 0) return;
    const uint16_t slot = slot_of_unit_[index * kPieceColumns / kUnitColumns];
    if (slot == kNoSlot) return;
    auto* const to = reinterpret_cast<uint32_t*>(slots_ + (kGemvWarps + slot) * SlotBytes() + row * kSlotRowBytes +
                                                 index % (kUnitColumns / kPieceColumns) * kPieceColumns * 2);
#pragma unroll
    for (int i = 0; i < kPieceColumns / 2; ++i) to[i] = piece.words[i] ^ InliersOf(piece.words[i]);
  }

  // rint(value * inverse), at most 127 in size, in the lowest byte.
  static __device__ __forceinline__ uint32_t Rint(float value, float inverse) {
    constexpr float kIntegers = 12582912.0f;  // 1.5 * 2^23: floats of this size are integers
    return __float_as_uint(__fadd_rn(__fmul_rn(value, inverse), kIntegers));
  }

  __device__ __forceinline__ SharedX OutliersOf(int unit) const {
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
        reinterpret_cast<uint16_t*>(outliers)[i] = static_cast<uint16_t>(element ^ InliersOf(element));
      }
      __syncwarp();
    }
    return {SharedAddress(outliers), kSlotRowBytes, arguments_.num_rows};
  }

  const GemvArguments& arguments_;
  Rows& rows_;
  unsigned char* const quantized_;  // [num_rows, x_shared_pitch]
  uint16_t* const slot_of_unit_;
  unsigned char* const masks_;  // of each chunk, a bit a unit
  unsigned char* const slots_;  // one for each warp where slots have run out; then num_outlier_slots
};

}  // namespace heddle::cuda
