// What a consumer multiplies in a step, for each kind of weight: 64 rows of it by all rows of x, into sums whose
// element e of sums[j], of lane l in warp w, is that of weight row 16 w + l / 4 + e / 2 * 8 and row 8 j + l % 4 * 2 + e
// % 2 of x.
#pragma once

#include "common/shared_memory.cuh"
#include "common/wgmma_quantised.cuh"
#include "quant/tile_parameters.h"
#include "quant/tile_product.h"

namespace heddle::cuda {

// What kinds of products have in common. A step takes kValues values of a row of the weight, kValueBytes together, and
// kXBoxes boxes of 128 bytes of a row of x; of a 2:4 weight also kMetadataRowBytes. A stage has them in this order.
// kXRowMicroseconds: see tile_division.cuh.
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

  static __device__ __forceinline__ const uint8_t* Weights(const uint8_t* stage, int consumer) {
    return stage + consumer * (kWeightBytes / kTileConsumers);
  }
  // In a stage that has a part of outliers.
  static __device__ __forceinline__ const uint8_t* OutlierWeights(const uint8_t* stage, int consumer) {
    return stage + consumer * (kTileWeightRows * kOutlierValues / kTileConsumers);
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

// The int8 in the low two bytes of `bytes` as T, exactly.
template <typename T>
__device__ __forceinline__ uint32_t PairFromInt8(uint32_t bytes);
template <>
__device__ __forceinline__ uint32_t PairFromInt8<__half>(uint32_t bytes) {
  // In a number from 1024 on the low bits count ones: 1024 + 128 + value, less 1152.
  const uint32_t raised = __byte_perm(bytes ^ 0x8080u, 0x64u, 0x4140);
  uint32_t pair;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(raised), "r"(0x64806480u));
  return pair;
}
template <>
__device__ __forceinline__ uint32_t PairFromInt8<__nv_bfloat16>(uint32_t bytes) {
  // From 128 on the low seven bits do: 128 + the value without its sign bit, less 128, or 256 for a set sign bit.
  const uint32_t raised = __byte_perm(bytes, 0x43u, 0x4140);
  uint32_t pair;
  asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(pair) : "r"(raised & 0xff7fff7fu), "r"(raised & 0xff80ff80u));
  return pair;
}

// The thread's part of 64 rows of int8 weights in shared memory, swizzled as boxes of rows of so many bytes are: 16
// columns at a time, as wgmma takes them from registers.
template <int kRowBytes>
class Int8Rows {
 public:
  __device__ __forceinline__ explicit Int8Rows(const uint8_t* rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
    swizzle_ = kRowBytes == 128 ? row % 8 : row / 2 % 4;
    from_ = rows + row * kRowBytes + lane % 4 * 2;
  }

  // Columns from 16 `chunk` on.
  template <typename T>
  __device__ __forceinline__ void Load(int chunk, uint32_t (&left)[4]) const {
    const uint8_t* const from = from_ + (chunk ^ swizzle_) * 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[i] = PairFromInt8<T>(*reinterpret_cast<const uint16_t*>(from + i % 2 * 8 * kRowBytes + i / 2 * 8));
    }
  }

 private:
  int swizzle_;
  const uint8_t* from_;
};

// Products of kChunks times 16 columns of weights, converted to T while those before are under way: multiply(left, i)
// begins one, a group by itself. kConvertedUnderWay may be under way when this returns.
inline constexpr int kConvertedUnderWay = 3;

template <typename T, int kChunks, int kRowBytes, typename Body>
__device__ __forceinline__ void MultiplyConverted(const Int8Rows<kRowBytes>& rows, const Body& multiply) {
  uint32_t left[kConvertedUnderWay + 1][4];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    auto& mine = left[i % (kConvertedUnderWay + 1)];
    rows.template Load<T>(i, mine);
    hopper::BeginProducts();
    multiply(mine, i);
    hopper::CommitProducts();
    hopper::WaitForProducts<kConvertedUnderWay>();
  }
}

// Int8 weights as T by x of T. Of 256 rows of x the ring has room for shorter steps only.
template <typename T, int kRows, int kStep = kRows == 256 ? 64 : 128>
struct ConvertedProducts : TileShape<kRows, kStep, kStep / 64> {
  using Shape = TileShape<kRows, kStep, kStep / 64>;
  using Sum = float;
  static constexpr double kXRowMicroseconds = 0.0030 * kStep / 128;
  static constexpr int kGroups = kConvertedUnderWay;
  static constexpr int kValues = kStep;
  static constexpr int kXBoxElements = 64;

  static __device__ __forceinline__ void Multiply(Sum (&sums)[kRows / 8][4], const uint8_t* stage, int consumer) {
    const uint64_t x = Shape::X(stage);
    const Int8Rows<kStep> rows(Shape::Weights(stage, consumer));
    MultiplyConverted<T, kStep / 16>(rows, [&](const uint32_t(&left)[4], int i) {
      hopper::MultiplyAddTransposed<T>(sums, left, x + i / 4 * (Shape::kXBoxBytes / 16) + i % 4 * 2);
    });
  }
};

// Int8 weights by int8 x, and by outliers of T. A stage has a step of the former, or a part of the latter.
template <typename T, int kRows>
struct OutlierProducts : Int8Products<kRows> {
  using Shape = typename Int8Products<kRows>::Shape;
  static constexpr double kXRowMicroseconds = 0.0011;
  static constexpr bool kHasOutliers = true;
  static constexpr int kOutlierColumns = cuda::kOutlierColumns;

  static __device__ __forceinline__ void MultiplyOutliers(float (&sums)[kRows / 8][4], const uint8_t* stage,
                                                          int consumer) {
    const uint64_t x = Shape::X(stage);
    const Int8Rows<kOutlierValues> rows(Shape::OutlierWeights(stage, consumer));
    MultiplyConverted<T, kOutlierColumns / 16>(
        rows, [&](const uint32_t(&left)[4], int i) { hopper::MultiplyAddTransposed<T>(sums, left, x + i * 2); });
  }
};

// Whether a tile's sums fit registers and its rows of x divide among so many blocks.
template <class Products>
constexpr bool CanSplit(int num_splits) {
  return Products::kXRows >= 16 * num_splits && (!Products::kHasOutliers || Products::kXRows <= 64);
}

}  // namespace heddle::cuda
