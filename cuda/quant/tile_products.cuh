// What a consumer multiplies in a step, for each kind of weight: 64 rows of it by all rows of x, into sums whose
// element e of sums[j], of lane l in warp w, is that of weight row 16 w + l / 4 + e / 2 * 8 and row 8 j + l % 4 * 2 + e
// % 2 of x.
#pragma once

#include "common/int8_floats.cuh"
#include "common/shared_memory.cuh"
#include "common/wgmma_quantised.cuh"
#include "quant/outlier_panel.h"
#include "quant/tile_parameters.h"
#include "quant/tile_product.h"

namespace heddle::cuda {

// What kinds of products have in common. A step takes kValues values of a row of the weight, kValueBytes together, and
// kXBoxes boxes of 128 bytes of a row of x; of a 2:4 weight also kMetadataRowBytes. A stage has them in this order.
// Sums that are floats are kSumUnit times what they stand for. kXRowMicroseconds: see tile_division.cuh.
template <int kRows, int kValueBytes, int kBoxes, int kMetadataRow = 0>
struct TileShape {
  static constexpr int kGroups = 1;
  static constexpr int kXRows = kRows;
  static constexpr int kXBoxes = kBoxes;
  static constexpr int kRowBytes = kValueBytes;
  static constexpr int kMetadataRowBytes = kMetadataRow;
  static constexpr int kWeightBytes = kTileWeightRows * kRowBytes;
  static constexpr int kXBoxBytes = kXRows * kBoxRowBytes;
  static constexpr int kMetadataBytes = kTileWeightRows * kMetadataRowBytes;
  static constexpr int kMetadataBegin = kWeightBytes + kXBoxes * kXBoxBytes;
  static constexpr int kStageBytes = kMetadataBegin + kMetadataBytes;

  static constexpr bool kHasOutliers = false;
  static constexpr bool kPanelsAfter = false;
  static constexpr float kSumUnit = 1.0f;

  static __device__ __forceinline__ const uint8_t* Weights(const uint8_t* stage, int consumer) {
    return stage + consumer * (kWeightBytes / kTileConsumers);
  }
  static __device__ __forceinline__ const uint8_t* Metadata(const uint8_t* stage, int consumer) {
    return stage + kMetadataBegin + consumer * (kMetadataBytes / kTileConsumers);
  }
  static __device__ __forceinline__ uint64_t X(const uint8_t* stage) {
    return hopper::Describe(SharedAddress(stage) + kWeightBytes);
  }
};

// Int8 weights by int8 x.
template <int kRows>
struct Int8Products : TileShape<kRows, 128, 1> {
  using Shape = TileShape<kRows, 128, 1>;
  using Sum = int32_t;
  static constexpr double kXRowMicroseconds = 0.0020;
  static constexpr int kValues = 128;
  static constexpr int kXBoxElements = 128;

  // Begins products, the youngest kGroups groups of which may be under way when this returns, and none before.
  static __device__ __forceinline__ void Multiply(Sum (&sums)[kRows / 8][4], const uint8_t* stage, int consumer) {
    const uint64_t weights = hopper::Describe(SharedAddress(Shape::Weights(stage, consumer)));
    const uint64_t x = Shape::X(stage);
    hopper::BeginProducts();
#pragma unroll
    for (int i = 0; i < 4; ++i) hopper::MultiplyAddTransposed(sums, weights + 2 * i, x + 2 * i);
    hopper::CommitProducts();
  }
};

// The thread's part of 64 rows of int8 weights in shared memory, swizzled as boxes of rows of so many bytes are: 16
// columns at a time, as wgmma takes them from registers.
template <int kRowBytes>
class Int8Rows {
 public:
  __device__ __forceinline__ explicit Int8Rows(const uint8_t* rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
    const int swizzle = kRowBytes == 128 ? row % 8 : row / 2 % 4;
    from_ = SharedAddress(rows) + row * kRowBytes + swizzle * 16 + lane % 4 * 2;
  }

  // Columns from 16 `chunk` on, two int8 in the low bytes of each.
  __device__ __forceinline__ void Load(int chunk, uint32_t (&pairs)[4]) const {
    const uint32_t from = from_ ^ chunk * 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = LoadSharedHalfWord(from + i % 2 * 8 * kRowBytes + i / 2 * 8);
  }

 private:
  uint32_t from_;  // of chunk 0
};

// Products of kChunks times 16 columns of weights, converted to T times kInt8FloatUnit<T> while those before are under
// way and those after on their way: multiply(left, i) begins one. kGroupChunks of them are a group, of which kUnderWay
// are under way when this returns. The compiler knows until when an operand is read, but not across branches, so that
// nothing in the source keeps operands of products that are still under way then: `npm run check:wgmma` looks whether
// the compiler did.
template <typename T, int kGroupChunks, int kUnderWay, int kChunks, int kRowBytes, typename Body>
__device__ __forceinline__ void MultiplyConverted(const Int8Rows<kRowBytes>& rows, const Body& multiply) {
  static_assert(kChunks % kGroupChunks == 0);
  uint32_t left[kUnderWay + 1][kGroupChunks][4];
  uint32_t pairs[kGroupChunks][4];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kGroupChunks; ++i) rows.Load(first + i, pairs[i]);
  };
  load(0);
#pragma unroll
  for (int first = 0; first < kChunks; first += kGroupChunks) {
    auto& mine = left[first / kGroupChunks % (kUnderWay + 1)];
#pragma unroll
    for (int i = 0; i < kGroupChunks; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) mine[i][j] = Int8PairToFloats<T, 0, 1>(pairs[i][j]);
    }
    if (first + kGroupChunks < kChunks) load(first + kGroupChunks);
    hopper::BeginProducts();
#pragma unroll
    for (int i = 0; i < kGroupChunks; ++i) multiply(mine[i], first + i);
    hopper::CommitProducts();
    hopper::WaitForProducts<kUnderWay>();
  }
}

// Int8 weights as T by x of T. Of 256 rows of x the ring has room for shorter steps only, at whose ends products do not
// wait for each other.
template <typename T, int kRows, int kStep = kRows == 256 ? 64 : 128>
struct ConvertedProducts : TileShape<kRows, kStep, kStep / 64> {
  using Shape = TileShape<kRows, kStep, kStep / 64>;
  using Sum = float;
  static constexpr float kSumUnit = kInt8FloatUnit<T>;
  static constexpr double kXRowMicroseconds = 0.0030 * kStep / 128;
  static constexpr int kGroupChunks = kRows == 256 ? 1 : kRows == 128 ? 2 : 4;
  static constexpr int kUnderWay = kRows == 256 ? 3 : 1;
  static constexpr int kGroups = kRows == 256 ? kUnderWay : 0;
  static constexpr int kValues = kStep;
  static constexpr int kXBoxElements = 64;

  static __device__ __forceinline__ void Multiply(Sum (&sums)[kRows / 8][4], const uint8_t* stage, int consumer) {
    const uint64_t x = Shape::X(stage);
    const Int8Rows<kStep> rows(Shape::Weights(stage, consumer));
    MultiplyConverted<T, kGroupChunks, kUnderWay, kStep / 16>(rows, [&](const uint32_t(&left)[4], int i) {
      const int offset = i / 4 * (Shape::kXBoxBytes / 16) + i % 4 * 2;
      hopper::MultiplyAddTransposed<T>(sums, left, hopper::Advance(x, offset));
    });
    if constexpr (kGroups == 0) hopper::WaitForProducts<0>();
  }
};

// The thread's part of any 16 columns of 64 rows of int8 weights in shared memory, of 128 bytes and swizzled as boxes
// of them are: as it is loaded, and as wgmma takes it from registers.
class Int8Columns {
 public:
  // `columns` has a byte for each of the thread's four.
  __device__ __forceinline__ void Load(const uint8_t* rows, uint32_t columns) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint8_t* const from = rows + (static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4) * kRowBytes;
    const uint32_t places = columns ^ lane / 4 * 0x10101010u;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint8_t* const value = from + (places >> 8 * i & 0xff);
      values_[i][0] = value[0];
      values_[i][1] = value[8 * kRowBytes];
    }
  }

  template <typename T>
  __device__ __forceinline__ void Convert(uint32_t (&left)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[i] = Int8PairToFloats<T, 0, 1>(values_[i / 2 * 2][i % 2] | values_[i / 2 * 2 + 1][i % 2] << 8);
    }
  }

 private:
  static constexpr int kRowBytes = 128;
  uint32_t values_[4][2];  // of a column, of the thread's two rows
};

// Int8 weights by int8 x, and by outliers of T: see panel_consumer.cuh.
template <typename T, int kRows>
struct OutlierProducts : Int8Products<kRows> {
  using Shape = typename Int8Products<kRows>::Shape;
  using Outlier = T;
  using Columns = Int8Columns;
  // Of what decodes, with six columns of outliers or one of a thousand: what 1,100 products were divided best by.
  static constexpr double kXRowMicroseconds = 0.0006;
  static constexpr float kSumUnit = kInt8FloatUnit<T>;
  static constexpr bool kHasOutliers = true;
  static constexpr int kStepColumns = kColumnsOfStep;
  // Whether registers have no room for sums of outliers beside the others. Then a piece's panels come after its steps,
  // in stages that have the weights of a step again and in the place of x so many of its panels.
  static constexpr bool kPanelsAfter = kRows == 256;
  static constexpr int kPanelsOfStage = Shape::kXBoxes * Shape::kXBoxBytes / PanelBytes(kRows);
  static_assert(kStepColumns == Shape::kXBoxes * Int8Products<kRows>::kXBoxElements);

  static __device__ __forceinline__ void Load(Columns& to, const uint8_t* stage, int consumer, uint32_t columns) {
    to.Load(Shape::Weights(stage, consumer), columns);
  }
};

// Whether a tile's rows of x divide among so many blocks.
template <class Products>
constexpr bool CanSplit(int num_splits) {
  return Products::kXRows >= 16 * num_splits;
}

}  // namespace heddle::cuda
