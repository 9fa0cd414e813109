// Products with 2:4 weights, few rows: of x's own type and int8, the latter in every way that x goes into them.
#include <limits>

#include "packed_weights_testing.h"

namespace heddle::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr PackedWeight::Kind kFloats = {.sparse = true};
constexpr PackedWeight::Kind kKept = {.int8 = true, .sparse = true};
PackedWeight::Kind Quantized(float outlier_threshold) {
  return {.int8 = true, .sparse = true, .x_quantization = kHeddleCudaQuantizeX, .outlier_threshold = outlier_threshold};
}

const std::vector<PackedWeight::Kind> kKinds = {kFloats,          kKept,           Quantized(kInfinity),
                                                Quantized(2.75f), Quantized(0.5f), Quantized(1e-30f)};

TEST(CudaSparseMatmul, "is right for 1 to 8 rows and any size, with weights of x's type") {
  ExpectPackedProducts({kFloats});
}
TEST(CudaSparseMatmul, "is right for 1 to 8 rows and any size, with int8 weights and x as it is") {
  ExpectPackedProducts({kKept});
}
TEST(CudaSparseMatmul, "is right for 1 to 8 rows and any size, with int8 weights and x as int8") {
  ExpectPackedProducts({Quantized(kInfinity)});
}
TEST(CudaSparseMatmul, "is right for 1 to 8 rows and any size, with int8 weights and outliers") {
  ExpectPackedProducts({Quantized(2.75f), Quantized(0.5f), Quantized(1e-30f)});
}
TEST(CudaSparseMatmul, "gives a row the same bits alone, beside others and in a graph") {
  ExpectPackedRowsAlone(kKinds);
}
TEST(CudaSparseMatmul, "is right for rows of any magnitude") { ExpectPackedMagnitudes({kFloats, kKept}); }
TEST(CudaSparseMatmul, "loses no more of a single row than its largest element says") { ExpectPackedOutlier({kKept}); }
TEST(CudaSparseMatmul, "takes a single row below 2^-96 as multiples of 2^-117") { ExpectPackedTinyRow({kKept}); }
TEST(CudaSparseMatmul, "keeps NaN and infinity in the rows that have them") { ExpectPackedNotFinite(kKinds); }
TEST(CudaSparseMatmul, "waits for the x that is being written") {
  ExpectPackedInOrder({kFloats, kKept, Quantized(kInfinity), Quantized(2.75f)});
}
TEST(CudaSparseGatedMatmul, "is right for 1 to 8 rows and every activation") { ExpectPackedGatedProducts(kKinds); }

}  // namespace
}  // namespace heddle::test
