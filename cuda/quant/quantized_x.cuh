// Rows of x in shared memory as int8, each with a scale, and what is an outlier as it was: whole, once for all warps of
// a block.
//
// A block quantises x for itself where that is little: it costs a barrier more than copying x, and a kernel ahead would
// cost a launch that everything waits for. Otherwise MarkRows did it.
#pragma once

#include "common/rounding.h"
#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"
#include "gemm/gemv_sums.cuh"
#include "quant/outlier_slots.cuh"
#include "quant/quantized_piece.cuh"

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

// kUnitColumns: of x, what belongs to 16 bytes of weights.
template <typename T, int kUnitColumns>
class QuantizedX {
  static_assert(sizeof(T) == 2);
  static constexpr int kChunkColumns = kChunkUnits * kUnitColumns;
  static constexpr int kMaxHeld = 4;  // pieces of a thread

 public:
  using Sum = QuantizedSum;
  static constexpr bool kInSlabs = false;

  // Whether a block of the product quantises x itself.
  static bool QuantizesItself(const GemvArguments& arguments) {
    const int64_t columns = RoundUp(arguments.x_row_bytes / 2, kGemvWarps * kChunkColumns);
    return arguments.num_rows * columns <= int64_t{kMaxHeld} * kGemvThreads * kPieceColumns;
  }

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
    __device__ __forceinline__ uint32_t UnitsWithOutliers() const { return x.outliers_.UnitsOf(index); }
    // Of one of those, called by all lanes. Until its next call.
    __device__ __forceinline__ SharedX OutliersOf(int unit) const { return x.outliers_.Of(index * kChunkUnits + unit); }
  };

  static bool Divide(int max_bytes, bool whole, GemvArguments& arguments) {
    if (!whole) return false;
    arguments.num_slabs = 1;
    arguments.x_shared_pitch = arguments.num_rounds * kGemvWarps * kChunkColumns + kPaddingBytes;
    arguments.num_outlier_slots = -1;
    const int left = max_bytes - SharedBytes(arguments);
    if (left < 0) return false;
    if (arguments.outlier_bits >= kInfinityBits<T>) return true;
    arguments.num_outlier_slots = Outliers::MaxSlots(left, arguments);
    return arguments.num_outlier_slots >= 0;
  }

  static int SharedBytes(const GemvArguments& arguments) {
    const int quantized_bytes = kRowsBytes + arguments.num_rows * arguments.x_shared_pitch;
    if (arguments.num_outlier_slots < 0) return quantized_bytes;
    return quantized_bytes + Outliers::SharedBytes(arguments.num_outlier_slots, arguments);
  }

  // Reads nothing of x.
  __device__ __forceinline__ QuantizedX(const GemvArguments& arguments, unsigned char* memory)
      : arguments_(arguments),
        rows_(*reinterpret_cast<Rows*>(memory)),
        quantized_(memory + kRowsBytes),
        outliers_(arguments, quantized_ + arguments.num_rows * arguments.x_shared_pitch) {
    if (threadIdx.x < kMaxRows) rows_.max_bits[threadIdx.x] = 0;
    __syncthreads();
  }

  __device__ __forceinline__ int Begin(int slab) const { return slab * arguments_.num_rounds; }

  // By all threads of the block. Instructions come from memory the first time: what is few has little code.
  __device__ __forceinline__ void LoadFirst() {
    if (arguments_.marked != nullptr) {
      LoadMarked();
      return;
    }
    const int num_tasks = arguments_.num_rows * RowTasks();
    if (num_tasks <= kGemvWarps) {
      QuantizeAll<1>();
    } else if (num_tasks <= 2 * kGemvWarps) {
      QuantizeAll<2>();
    } else {
      QuantizeAll<kMaxHeld>();
    }
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
  using Piece = QuantizedPiece<T>;
  using Outliers = OutlierSlots<T, kUnitColumns>;

  static constexpr int kMaxRows = 8;
  static constexpr int kPaddingBytes = 16;

  struct Rows {
    uint32_t max_bits[kMaxRows];  // of inliers
    float scales[kMaxRows];
  };
  static constexpr int kRowsBytes = 64;
  static_assert(sizeof(Rows) <= kRowsBytes && kRowsBytes % 16 == 0);

  // 32 pieces of a row, a lane one: the calling warp's first, and from one to its next.
  class Task {
   public:
    __device__ __forceinline__ explicit Task(int row_tasks) : index_(threadIdx.x / 32), row_tasks_(row_tasks) {
      Settle();
    }
    __device__ __forceinline__ void Advance() {
      index_ += kGemvWarps;
      Settle();
    }
    __device__ __forceinline__ int row() const { return row_; }
    __device__ __forceinline__ int piece() const { return index_ * 32 + threadIdx.x % 32; }

   private:
    __device__ __forceinline__ void Settle() {
      while (index_ >= row_tasks_) {
        index_ -= row_tasks_;
        ++row_;
      }
    }
    int row_ = 0;
    int index_;
    int row_tasks_;
  };

  __device__ __forceinline__ int NumChunks() const { return arguments_.num_rounds * kGemvWarps; }
  __device__ __forceinline__ int RowTasks() const { return NumChunks() * kChunkColumns / (32 * kPieceColumns); }

  // Calls body(i, task) for up to kCount tasks of the calling warp, and takes `task` beyond them.
  template <int kCount, typename Body>
  __device__ __forceinline__ void ForTasks(Task& task, const Body& body) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (task.row() < arguments_.num_rows) body(i, task);
      task.Advance();
    }
  }

  __device__ __forceinline__ Piece Load(const Task& task) const {
    Piece piece;
    piece.Load(arguments_.x + task.row() * arguments_.x_pitch, task.piece() * kPieceColumns * 2,
               arguments_.x_row_bytes);
    return piece;
  }

  template <int kHeld>
  __device__ __forceinline__ void QuantizeAll() {
    Piece pieces[kHeld];
    Task task(RowTasks());
    ForTasks<kHeld>(task, [&](int i, const Task& at) { pieces[i] = Load(at); });
    task = Task(RowTasks());
    ForTasks<kHeld>(task, [&](int i, const Task& at) {
      uint32_t bits = pieces[i].MaxBits();
      if (bits >= arguments_.outlier_bits) {
        if (outliers_.any()) outliers_.Claim(at.piece());
        bits = pieces[i].MaxInlierBits(bits, arguments_.outlier_bits);
      }
      bits = __reduce_max_sync(0xffffffffu, bits);
      if (threadIdx.x % 32 == 0) atomicMax(&rows_.max_bits[at.row()], bits);
    });
    __syncthreads();
    if (threadIdx.x < arguments_.num_rows) rows_.scales[threadIdx.x] = ScaleOf<T>(rows_.max_bits[threadIdx.x]);
    task = Task(RowTasks());
    ForTasks<kHeld>(task, [&](int i, const Task& at) {
      if (pieces[i].MaxBits() >= arguments_.outlier_bits) {
        if (outliers_.any()) outliers_.Keep(pieces[i], at.row(), at.piece());
        pieces[i] = pieces[i].InliersOf(arguments_.outlier_bits);
      }
      Store(at, pieces[i].Quantize(InverseScaleOf<T>(rows_.max_bits[at.row()])));
    });
    __syncthreads();
  }

  __device__ __forceinline__ void LoadMarked() {
    constexpr int kAtOnce = 8;
    if (threadIdx.x < arguments_.num_rows) rows_.scales[threadIdx.x] = __ldcg(arguments_.marked_scales + threadIdx.x);
    Task task(RowTasks());
#pragma unroll 1
    while (task.row() < arguments_.num_rows) {
      uint4 quantized[kAtOnce];
      Task loading = task;
      ForTasks<kAtOnce>(loading, [&](int i, const Task& at) {
        const int offset = at.piece() * kPieceColumns;
        quantized[i] = {};
        if (offset >= arguments_.marked_pitch) return;
        quantized[i] =
            __ldcg(reinterpret_cast<const uint4*>(arguments_.marked + at.row() * arguments_.marked_pitch + offset));
      });
      ForTasks<kAtOnce>(task, [&](int i, const Task& at) {
        if (outliers_.any() && Unmark(quantized[i])) outliers_.Claim(at.piece());
        Store(at, quantized[i]);
      });
    }
    __syncthreads();
    if (outliers_.any()) outliers_.FetchAll();
    __syncthreads();
  }

  // Whether there were marks.
  static __device__ __forceinline__ bool Unmark(uint4& quantized) {
    const auto unmark = [](uint32_t& word) {
      const uint32_t marks = __vcmpeq4(word, 0x80808080u);
      word &= ~marks;
      return marks;
    };
    return (unmark(quantized.x) | unmark(quantized.y) | unmark(quantized.z) | unmark(quantized.w)) != 0;
  }

  __device__ __forceinline__ void Store(const Task& task, const uint4& quantized) {
    *reinterpret_cast<uint4*>(quantized_ + task.row() * arguments_.x_shared_pitch + task.piece() * kPieceColumns) =
        quantized;
  }

  const GemvArguments& arguments_;
  Rows& rows_;
  unsigned char* const quantized_;  // [num_rows, x_shared_pitch]
  Outliers outliers_;
};

}  // namespace heddle::cuda
