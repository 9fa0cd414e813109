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
template <int kRowBytes>
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
    const MetadataOfPairs<16> metadata(Shape::Metadata(stage, consumer));
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

// Products of 64 int8 values of each row, converted to T, with the 128 columns of x that begin at `x`. They have ended
// when this returns.
template <typename T, class Shape, int kMetadataRowBytes, int kTiles>
__device__ __forceinline__ void MultiplySparseConverted(float (&sums)[kTiles][4],
                                                        const MetadataOfPairs<kMetadataRowBytes>& metadata, uint64_t x,
                                                        const Int8Rows<64>& rows) {
  uint32_t of_products[4];
  metadata.Load(of_products);
  MultiplyConverted<T, 2, 1, 4>(rows, [&](const uint32_t(&left)[4], int i) {
    const int offset = i / 2 * (Shape::kXBoxBytes / 16) + i % 2 * 4;
    hopper::MultiplyAddSparse<T>(sums, left, hopper::Advance(x, offset), of_products[i]);
  });
  hopper::WaitForProducts<0>();
  hopper::KeepMetadata(of_products);
}

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
    MultiplySparseConverted<T, Shape>(sums, MetadataOfPairs<16>(Shape::Metadata(stage, consumer)), Shape::X(stage),
                                      Int8Rows<64>(Shape::Weights(stage, consumer)));
  }
};

// Int8 by int8, and by outliers of T.
template <typename T, int kRows>
struct SparseOutlierProducts : SparseInt8Products<kRows> {
  using Shape = typename SparseInt8Products<kRows>::Shape;
  static constexpr bool kHasOutliers = true;
  static constexpr float kSumUnit = kInt8FloatUnit<T>;
  static constexpr int kOutlierColumns = kSparseOutlierColumns;

  static __device__ __forceinline__ void MultiplyOutliers(float (&sums)[kRows / 8][4], const uint8_t* stage,
                                                          int consumer) {
    MultiplySparseConverted<T, Shape>(sums, MetadataOfPairs<32>(Shape::Metadata(stage, consumer)), Shape::X(stage),
                                      Int8Rows<kOutlierValues>(Shape::OutlierWeights(stage, consumer)));
  }
};

}  // namespace heddle::cuda
