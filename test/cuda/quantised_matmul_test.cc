// Products with int8 weights, few rows: weight-only, with x as int8, and with outliers of it.
#include <limits>

#include "packed_weights_testing.h"

namespace heddle::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr PackedWeight::Kind kKept = {.int8 = true};
PackedWeight::Kind Quantized(float outlier_threshold) {
  return {.int8 = true, .x_quantization = kHeddleCudaQuantizeX, .outlier_threshold = outlier_threshold};
}

// No outliers, one in 160 elements, most, all.
const std::vector<PackedWeight::Kind> kKinds = {kKept, Quantized(kInfinity), Quantized(2.75f), Quantized(0.5f),
                                                Quantized(1e-30f)};

TEST(CudaInt8Matmul, "is right for 1 to 8 rows and any size, with x as it is") { ExpectPackedProducts({kKept}); }
TEST(CudaInt8Matmul, "is right for 1 to 8 rows and any size, with x as int8") {
  ExpectPackedProducts({Quantized(kInfinity)});
}
TEST(CudaInt8Matmul, "is right for 1 to 8 rows and any size, with some outliers") {
  ExpectPackedProducts({Quantized(2.75f)});
}
TEST(CudaInt8Matmul, "is right for 1 to 8 rows and any size, with many outliers") {
  ExpectPackedProducts({Quantized(0.5f), Quantized(1e-30f)});
}
TEST(CudaInt8Matmul, "gives a row the same bits alone, beside others and in a graph") { ExpectPackedRowsAlone(kKinds); }
TEST(CudaInt8Matmul, "is right for rows of any magnitude") { ExpectPackedMagnitudes({kKept}); }
TEST(CudaInt8Matmul, "loses no more of a single row than its largest element says") { ExpectPackedOutlier({kKept}); }
TEST(CudaInt8Matmul, "takes a single row below 2^-96 as multiples of 2^-117") { ExpectPackedTinyRow({kKept}); }
TEST(CudaInt8Matmul, "keeps NaN and infinity in the rows that have them") { ExpectPackedNotFinite(kKinds); }
TEST(CudaInt8Matmul, "waits for the x that is being written") {
  ExpectPackedInOrder({kKept, Quantized(kInfinity), Quantized(2.75f)});
}
TEST(CudaInt8GatedMatmul, "is right for 1 to 8 rows and every activation") { ExpectPackedGatedProducts(kKinds); }

}  // namespace
}  // namespace heddle::test
