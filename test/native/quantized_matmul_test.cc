// Products with int8 and with 2:4 sparse weights.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "comm/tensor_parallel.h"
#include "ops/ops.h"
#include "tensor/quantize_row.h"
#include "tensor_testing.h"

namespace heddle {
namespace {

using test::Random;
using test::RunnableIsas;
using test::SameBits;

constexpr float kNoOutliers = std::numeric_limits<float>::infinity();

std::vector<int64_t> Slices(int64_t k) { return TensorParallel{}.ShardSlices(k, 16); }

Tensor RandomMatrix(int64_t rows, int64_t columns, uint64_t seed) {
  Random random(seed);
  Tensor tensor(DType::kFloat32, {rows, columns});
  for (int64_t i = 0; i < rows * columns; ++i) tensor.view().Data<float>()[i] = random.Uniform(-1, 1);
  return tensor;
}

// Two of every four neighbours become zero, which two depends on where they are.
void MakeSparse(const Tensor& matrix) {
  const TensorView& view = matrix.view();
  for (int64_t row = 0; row < view.dim(0); ++row) {
    for (int64_t k = 0; k < view.dim(1); k += 4) {
      const int64_t first = (row + k / 4) % 4;
      const int64_t second = (first + 1 + (row * 7 + k / 4) % 3) % 4;
      for (const int64_t i : {first, second}) view.Row<float>(row)[k + i] = 0;
    }
  }
}

struct Int8Matrix {
  explicit Int8Matrix(const Tensor& matrix)
      : values(DType::kInt8, matrix.view().shape), scales(static_cast<size_t>(matrix.view().dim(0))) {
    for (int64_t row = 0; row < matrix.view().dim(0); ++row) {
      scales[static_cast<size_t>(row)] =
          QuantizeRow({matrix.view().Row<float>(row), static_cast<size_t>(matrix.view().dim(1))}, DType::kFloat32,
                      values.view().Row<int8_t>(row));
    }
  }
  Tensor values;
  std::vector<float> scales;
};

PackedMatrix Pack(const MatrixFormat& format, const Int8Matrix& weight, std::vector<int64_t> slices) {
  PackedMatrix packed(format, weight.values.view().dim(0), weight.values.view().dim(1), std::move(slices));
  packed.PackRows(0, weight.values, weight.scales.data());
  return packed;
}

Tensor Product(CpuIsa isa, int threads, const TensorView& x, const PackedMatrix& weight) {
  Stream stream(threads, /*oversubscribed=*/true, isa);
  Tensor y(DType::kFloat32, {x.dim(0), weight.n()});
  ops::Matmul(stream, x, weight, y);
  return y;
}

// What the instruction set makes of x before it multiplies float rows by int8 weights.
Tensor AsMultiplied(CpuIsa isa, const Tensor& x) {
  if (isa != CpuIsa::kAmx) return x;
  Tensor rounded(DType::kFloat32, x.view().shape);
  for (int64_t i = 0; i < x.view().shape.NumElements(); ++i) {
    rounded.view().Data<float>()[i] = BFloat16ToFloat(FloatToBFloat16(x.view().Data<float>()[i]));
  }
  return rounded;
}

// One output of one row over one slice, as ops/cpu/kernels.h has it.
float SliceProduct(const float* x, const int8_t* weight, int64_t size, float threshold, float scale) {
  float largest = 0;
  for (int64_t k = 0; k < size; ++k) {
    if (std::abs(x[k]) < threshold) largest = std::max(largest, std::abs(x[k]));
  }
  const float step = largest / 127.0f;
  int32_t sum = 0;
  float outliers = 0;
  bool has_outliers = false;
  for (int64_t k = 0; k < size; ++k) {
    if (std::abs(x[k]) >= threshold) {
      outliers = std::fma(x[k], static_cast<float>(weight[k]), outliers);
      has_outliers = true;
    } else if (step > 0) {
      sum += static_cast<int32_t>(std::nearbyint(x[k] * (1.0f / step))) * weight[k];
    }
  }
  const float rounded = static_cast<float>(sum) * step;
  return (has_outliers ? rounded + outliers : rounded) * scale;
}

// The slices' products in a balanced tree.
float Product(const float* x, const Int8Matrix& weight, int64_t output, const std::vector<int64_t>& slices,
              float threshold) {
  std::vector<float> sums;
  for (size_t s = 0; s + 1 < slices.size(); ++s) {
    sums.push_back(SliceProduct(x + slices[s], weight.values.view().Row<int8_t>(output) + slices[s],
                                slices[s + 1] - slices[s], threshold, weight.scales[static_cast<size_t>(output)]));
  }
  for (; sums.size() > 1; sums.resize(sums.size() / 2)) {
    for (size_t i = 0; i < sums.size(); i += 2) sums[i / 2] = sums[i] + sums[i + 1];
  }
  return sums[0];
}

TEST(PackedMatrix, "gives back int8 rows times their scales, and knows its size before it is made") {
  const Tensor weight = RandomMatrix(37, 101, 1);
  const Int8Matrix int8(weight);
  PackedMatrix packed({.dtype = DType::kInt8}, 37, 101, Slices(101));
  packed.PackRows(0, int8.values.view().Rows(0, 5), int8.scales.data());
  packed.PackRows(5, int8.values.view().Rows(5, 37), int8.scales.data() + 5);
  EXPECT_EQ(static_cast<int64_t>(packed.size_bytes()), PackedMatrix::SizeBytes(packed.format(), 37, Slices(101)));
  std::vector<float> row(101);
  for (int64_t n = 0; n < 37; ++n) {
    packed.UnpackRow(n, row);
    for (int64_t k = 0; k < 101; ++k) {
      EXPECT_EQ(row[static_cast<size_t>(k)],
                static_cast<float>(int8.values.view().Row<int8_t>(n)[k]) * int8.scales[static_cast<size_t>(n)]);
    }
  }
}

TEST(Int8Matmul, "multiplies float rows by int8 weights and their scales") {
  for (CpuIsa isa : RunnableIsas()) {
    for (int64_t k : {1, 3, 4, 7, 64, 161, 989}) {
      const Int8Matrix weight(RandomMatrix(111, k, 2));
      for (const auto& slices : {Slices(k), std::vector<int64_t>{0, k}}) {
        const PackedMatrix packed = Pack({.dtype = DType::kInt8}, weight, slices);
        for (int64_t m : {1, 2, 3, 5, 13, 97}) {
          const Tensor x = RandomMatrix(m, k, 3);
          const Tensor y = Product(isa, 2, x, packed);
          const Tensor as_multiplied = AsMultiplied(isa, x);
          for (int64_t row = 0; row < m; ++row) {
            for (int64_t n = 0; n < 111; ++n) {
              double sum = 0;
              double magnitude = 1e-30;
              for (int64_t i = 0; i < k; ++i) {
                const double term = static_cast<double>(as_multiplied.view().Row<float>(row)[i]) *
                                    weight.values.view().Row<int8_t>(n)[i];
                sum += term;
                magnitude += std::abs(term);
              }
              const double scale = static_cast<double>(weight.scales[static_cast<size_t>(n)]);
              EXPECT_TRUE(std::abs(sum * scale - static_cast<double>(y.view().Row<float>(row)[n])) <=
                          2e-6 * magnitude * scale);
            }
          }
        }
      }
    }
  }
}

TEST(Int8Matmul, "rounds each slice of a row by its own largest value, to the bit on every instruction set") {
  for (const float threshold : {kNoOutliers, 0.9f, 0.0f}) {
    for (int64_t k : {1, 4, 7, 64, 161, 989, 2100}) {
      const Int8Matrix weight(RandomMatrix(70, k, 4));
      for (const auto& slices : {Slices(k), std::vector<int64_t>{0, k}}) {
        const MatrixFormat format{.dtype = DType::kInt8, .quantize_x = true, .outlier_threshold = threshold};
        const PackedMatrix packed = Pack(format, weight, slices);
        const Tensor x = RandomMatrix(21, k, 5);
        for (CpuIsa isa : RunnableIsas()) {
          // Has no fused multiply-add for the outliers' sums.
          if (isa == CpuIsa::kScalar && threshold != kNoOutliers) continue;
          for (int64_t m : {1, 2, 3, 9, 21}) {
            const Tensor y = Product(isa, 2, x.view().Rows(0, m), packed);
            for (int64_t row = 0; row < m; ++row) {
              for (int64_t n = 0; n < 70; ++n) {
                EXPECT_EQ(y.view().Row<float>(row)[n], Product(x.view().Row<float>(row), weight, n, slices, threshold));
              }
            }
          }
        }
      }
    }
  }
}

TEST(Int8Matmul, "takes weights of -128") {
  Int8Matrix weight(RandomMatrix(20, 90, 6));
  for (int64_t i = 0; i < 20 * 90; i += 3) weight.values.view().Data<int8_t>()[i] = -128;
  const PackedMatrix packed = Pack({.dtype = DType::kInt8, .quantize_x = true}, weight, {0, 90});
  const Tensor x = RandomMatrix(7, 90, 7);
  for (CpuIsa isa : RunnableIsas()) {
    const Tensor y = Product(isa, 1, x, packed);
    for (int64_t row = 0; row < 7; ++row) {
      for (int64_t n = 0; n < 20; ++n) {
        EXPECT_EQ(y.view().Row<float>(row)[n], Product(x.view().Row<float>(row), weight, n, {0, 90}, kNoOutliers));
      }
    }
  }
}

TEST(Int8Matmul, "gives a row of zeros zeros, and one with a value that is no number none, beside others") {
  const Int8Matrix weight(RandomMatrix(20, 64, 8));
  for (const float threshold : {kNoOutliers, 0.9f}) {
    const MatrixFormat format{.dtype = DType::kInt8, .quantize_x = true, .outlier_threshold = threshold};
    const PackedMatrix packed = Pack(format, weight, {0, 64});
    for (CpuIsa isa : RunnableIsas()) {
      for (const float value : {NAN, INFINITY}) {
        const Tensor x = RandomMatrix(3, 64, 9);
        std::fill_n(x.view().Row<float>(0), 64, 0.0f);
        x.view().Row<float>(1)[33] = value;
        const Tensor y = Product(isa, 1, x, packed);
        for (int64_t n = 0; n < 20; ++n) {
          EXPECT_EQ(y.view().Row<float>(0)[n], 0.0f);
          EXPECT_TRUE(!std::isfinite(y.view().Row<float>(1)[n]));
          EXPECT_TRUE(std::isfinite(y.view().Row<float>(2)[n]));
        }
      }
    }
  }
}

TEST(SparseMatmul, "gives the bits of the dense product, for every kind of values, batch and cut of K") {
  for (int64_t k : {4, 16, 64, 160, 1000, 2080}) {
    const Tensor weight = RandomMatrix(53, k, 10);
    MakeSparse(weight);
    const Int8Matrix int8(weight);
    const Tensor x = RandomMatrix(101, k, 11);
    for (MatrixFormat format :
         {MatrixFormat{.dtype = DType::kBFloat16}, MatrixFormat{.dtype = DType::kFloat16},
          MatrixFormat{.dtype = DType::kInt8}, MatrixFormat{.dtype = DType::kInt8, .quantize_x = true},
          MatrixFormat{.dtype = DType::kInt8, .quantize_x = true, .outlier_threshold = 0.9f}}) {
      for (const auto& slices : {Slices(k), std::vector<int64_t>{0, k}}) {
        const bool is_int8 = format.dtype == DType::kInt8;
        const auto pack = [&](bool sparse) {
          format.sparse = sparse;
          PackedMatrix packed(format, 53, k, slices);
          const TensorView rows = is_int8 ? int8.values.view() : weight.view();
          // In parts that begin inside a panel.
          packed.PackRows(0, rows.Rows(0, 5), is_int8 ? int8.scales.data() : nullptr);
          packed.PackRows(5, rows.Rows(5, 53), is_int8 ? int8.scales.data() + 5 : nullptr);
          return packed;
        };
        const PackedMatrix dense = pack(false);
        const PackedMatrix sparse = pack(true);
        for (CpuIsa isa : RunnableIsas()) {
          for (int64_t m : {1, 2, 3, 8, 9, 40, 101}) {
            EXPECT_TRUE(
                SameBits(Product(isa, 2, x.view().Rows(0, m), sparse), Product(isa, 2, x.view().Rows(0, m), dense)));
          }
        }
      }
    }
  }
}

TEST(SparseMatmul, "stores nine sixteenths of the bytes of 16-bit weights and ten sixteenths of int8 ones") {
  const auto bytes = [](DType dtype, bool sparse) {
    return PackedMatrix::SizeBytes({.dtype = dtype, .sparse = sparse}, 4096, {0, 4096});
  };
  EXPECT_EQ(bytes(DType::kBFloat16, true) * 16, bytes(DType::kBFloat16, false) * 9);
  // Beside the scales and sums of both.
  constexpr int64_t kBeside = 4096 * 8;
  EXPECT_EQ((bytes(DType::kInt8, true) - kBeside) * 16, (bytes(DType::kInt8, false) - kBeside) * 10);
}

TEST(GatedMatmul, "multiplies both halves of int8 and sparse matrices by their own scales") {
  constexpr int64_t kK = 96;
  constexpr int64_t kOutputs = 35;
  const int64_t half = ops::GatedHalf(kOutputs, MatrixLayout::kPanels);
  const Tensor gate = RandomMatrix(kOutputs, kK, 12);
  const Tensor up = RandomMatrix(kOutputs, kK, 13);
  MakeSparse(gate);
  MakeSparse(up);
  const Int8Matrix gate8(gate);
  const Int8Matrix up8(up);
  const Tensor x = RandomMatrix(11, kK, 14);
  for (const MatrixFormat& format :
       {MatrixFormat{.dtype = DType::kInt8}, MatrixFormat{.dtype = DType::kInt8, .sparse = true},
        MatrixFormat{.dtype = DType::kInt8, .sparse = true, .quantize_x = true}}) {
    PackedMatrix both(format, 2 * half, kK, {0, kK});
    both.PackRows(0, gate8.values, gate8.scales.data());
    both.PackRows(half, up8.values, up8.scales.data());
    for (CpuIsa isa : RunnableIsas()) {
      Stream stream(1, true, isa);
      Tensor y(DType::kFloat32, {11, kOutputs});
      ops::GatedMatmul(stream, ops::Activation::kSilu, x, both, y);
      const Tensor gates = Product(isa, 1, x, Pack(format, gate8, {0, kK}));
      const Tensor ups = Product(isa, 1, x, Pack(format, up8, {0, kK}));
      for (int64_t i = 0; i < 11 * kOutputs; ++i) {
        const float g = gates.view().Data<float>()[i];
        const float expected = g / (1.0f + std::exp(-g)) * ups.view().Data<float>()[i];
        EXPECT_TRUE(std::abs(y.view().Data<float>()[i] - expected) <= 1e-5f * (std::abs(expected) + 1e-3f));
      }
    }
  }
}

}  // namespace
}  // namespace heddle
