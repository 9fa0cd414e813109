// Products of 2:4 weights, by the tensor cores' own instruction for them: see tile_products.cuh.
//
// The host's metadata is in the order of the instruction but for which thread has what of it, so that it is read from
// shared memory as it lies. A step's products end before the next step's metadata is loaded: see KeepMetadata.
// Meanwhile the other consumer's are under way.
#pragma once

#include "common/wgmma_sparse.cuh"
#include "quant/tile_products.cuh"

namespace heddle::cuda {

// The thread's metadata for products of T, of 32 columns each: see MultiplyAddSparse.
class MetadataOfPairs {
 public:
  __device__ __forceinline__ explicit MetadataOfPairs(const uint8_t* rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
    from_ = rows + row * kRowBytes + lane % 2 * 2;
  }

  __device__ __forceinline__ void Load(uint32_t (&of_products)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = *reinterpret_cast<const uint16_t*>(from_ + i * 4);
      const uint32_t high = *reinterpret_cast<const uint16_t*>(from_ + i * 4 + 8 * kRowBytes);
      of_products[i] = low | high << 16;
    }
  }

 private:
  static constexpr int kRowBytes = 16;
  const uint8_t* from_;
};

// T by T.
template <typename T, int kRows>
struct SparseProducts : TileShape<kRows, 128, 2, 16> {
  using Shape = TileShape<kRows, 128, 2, 16>;
  using Sum = float;
  static constexpr double kXRowMicroseconds = 0.0007;
  static constexpr int kGroups = 0;
  static constexpr int kValues = 64;
  static constexpr int kXBoxElements = 64;

  static __device__ __forceinline__ void Multiply(Sum (&sums)[kRows / 8][4], const uint8_t* stage, int consumer) {
    const MetadataOfPairs metadata(Shape::Metadata(stage, consumer));
    const uint64_t weights = hopper::Describe(SharedAddress(Shape::Weights(stage, consumer)));
    const uint64_t x = Shape::X(stage);
    uint32_t of_products[4];
    metadata.Load(of_products);
    hopper::BeginProducts();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      hopper::MultiplyAddSparse<T>(sums, weights + 2 * i, x + i / 2 * (Shape::kXBoxBytes / 16) + i % 2 * 4,
                                   of_products[i]);
    }
    hopper::CommitProducts();
    hopper::WaitForProducts<0>();
    hopper::KeepMetadata(of_products);
  }
};

// Int8 by int8.
template <int kRows>
struct SparseInt8Products : TileShape<kRows, 128, 2, 32> {
  using Shape = TileShape<kRows, 128, 2, 32>;
  using Sum = int32_t;
  static constexpr double kXRowMicroseconds = 0.0011;
  static constexpr int kGroups = 0;
  static constexpr int kValues = 128;
  static constexpr int kXBoxElements = 128;

  static __device__ __forceinline__ void Multiply(Sum (&sums)[kRows / 8][4], const uint8_t* stage, int consumer) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4 + lane % 2 * 8;
    const uint8_t* const metadata = Shape::Metadata(stage, consumer) + row * 32 + lane / 2 % 2 * 4;
    const uint64_t weights = hopper::Describe(SharedAddress(Shape::Weights(stage, consumer)));
    const uint64_t x = Shape::X(stage);
    uint32_t of_products[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) of_products[i] = *reinterpret_cast<const uint32_t*>(metadata + i * 8);
    hopper::BeginProducts();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      hopper::MultiplyAddSparse(sums, weights + 2 * i, x + i / 2 * (Shape::kXBoxBytes / 16) + i % 2 * 4,
                                of_products[i]);
    }
    hopper::CommitProducts();
    hopper::WaitForProducts<0>();
    hopper::KeepMetadata(of_products);
  }
};

// Int8 as T by T.
template <typename T, int kRows>
struct SparseConvertedProducts : TileShape<kRows, 64, 2, 16> {
  using Shape = TileShape<kRows, 64, 2, 16>;
  using Sum = float;
  static constexpr float kSumUnit = kInt8FloatUnit<T>;
  static constexpr double kXRowMicroseconds = 0.0035;
  static constexpr int kGroups = 0;
  static constexpr int kValues = 64;
  static constexpr int kXBoxElements = 64;

  static __device__ __forceinline__ void Multiply(Sum (&sums)[kRows / 8][4], const uint8_t* stage, int consumer) {
    const MetadataOfPairs metadata(Shape::Metadata(stage, consumer));
    const uint64_t x = Shape::X(stage);
    const Int8Rows<64> rows(Shape::Weights(stage, consumer));
    uint32_t of_products[4];
    metadata.Load(of_products);
    MultiplyConverted<T, 2, 1, 4>(rows, [&](const uint32_t(&left)[4], int i) {
      const int offset = i / 2 * (Shape::kXBoxBytes / 16) + i % 2 * 4;
      hopper::MultiplyAddSparse<T>(sums, left, hopper::Advance(x, offset), of_products[i]);
    });
    hopper::WaitForProducts<0>();
    hopper::KeepMetadata(of_products);
  }
};

// Int8Columns of 2:4 weights: of the four positions of a group two have values, and the others are zeros.
class SparseInt8Columns {
 public:
  __device__ __forceinline__ void Load(const uint8_t* rows, const uint8_t* metadata, uint32_t columns) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
    columns_ = columns;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t column = columns >> 8 * i & 0xff;
      const uint8_t* const values = rows + row * kRowBytes + (column / 4 * 2 ^ row % 8 * 16);
      const uint8_t* const positions = metadata + row * kMetadataRowBytes + column / 8;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        values_[i][j] = *reinterpret_cast<const uint16_t*>(values + j * 8 * kRowBytes);
        positions_[i][j] = positions[j * 8 * kMetadataRowBytes];
      }
    }
  }

  template <typename T>
  __device__ __forceinline__ void Convert(uint32_t (&left)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      left[i] = Int8PairToFloats<T, 0, 1>(Value(i / 2 * 2, i % 2) | Value(i / 2 * 2 + 1, i % 2) << 8);
    }
  }

 private:
  static constexpr int kRowBytes = 128;
  static constexpr int kMetadataRowBytes = 32;

  __device__ __forceinline__ uint32_t Value(int i, int row) const {
    const uint32_t column = columns_ >> 8 * i & 0xff;
    // Where a position of the group is this one, its two bits become zeros.
    const uint32_t positions = positions_[i][row] >> column / 4 % 2 * 4 ^ column % 4 * 5;
    const uint32_t values = values_[i][row];
    return (positions & 3) == 0 ? values & 0xff : (positions & 12) == 0 ? values >> 8 : 0;
  }

  uint32_t columns_;
  uint32_t values_[4][2];     // both of a group, of the thread's two rows
  uint32_t positions_[4][2];  // of its group and the one beside it
};

// Int8 by int8, and by outliers of T: see panel_consumer.cuh.
template <typename T, int kRows>
struct SparseOutlierProducts : SparseInt8Products<kRows> {
  using Shape = typename SparseInt8Products<kRows>::Shape;
  using Outlier = T;
  using Columns = SparseInt8Columns;
  static constexpr float kSumUnit = kInt8FloatUnit<T>;
  static constexpr bool kHasOutliers = true;
  static constexpr int kStepColumns = kSparseColumnsOfStep;
  static_assert(kStepColumns == Shape::kXBoxes * SparseInt8Products<kRows>::kXBoxElements);

  static __device__ __forceinline__ void Load(Columns& to, const uint8_t* stage, int consumer, uint32_t columns) {
    to.Load(Shape::Weights(stage, consumer), Shape::Metadata(stage, consumer), columns);
  }
};

}  // namespace heddle::cuda
