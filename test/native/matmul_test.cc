// Packed matrices and their product: against double precision, and to the bit against themselves, whatever the batch,
// the number of threads and the number of ranks.
#include <cmath>
#include <cstring>
#include <vector>

#include "comm/tensor_parallel.h"
#include "ops/ops.h"
#include "tensor_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::RunnableIsas;
using test::SameBits;

// Repeatable values in [-1, 1).
Tensor RandomMatrix(int64_t rows, int64_t columns, uint32_t seed) {
  Tensor tensor(DType::kFloat32, {rows, columns});
  uint32_t state = seed * 2654435761u + 1;
  for (int64_t i = 0; i < rows * columns; ++i) {
    state = state * 1664525u + 1013904223u;
    tensor.view().Data<float>()[i] = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
  return tensor;
}

PackedMatrix Pack(DType dtype, const TensorView& weight, std::vector<int64_t> slices) {
  PackedMatrix packed({.dtype = dtype}, weight.dim(0), weight.dim(1), std::move(slices));
  packed.PackRows(0, weight);
  return packed;
}

std::vector<int64_t> Slices(int64_t k, int64_t unit) { return TensorParallel{}.ShardSlices(k, unit); }

Tensor Product(CpuIsa isa, int threads, const TensorView& x, const PackedMatrix& weight,
               const TensorView* bias = nullptr) {
  Stream stream(threads, /*oversubscribed=*/true, isa);
  Tensor y(DType::kFloat32, {x.dim(0), weight.n()});
  ops::Matmul(stream, x, weight, y, bias);
  return y;
}

// What the instruction set makes of x before it multiplies: what multiplies bfloat16 rounds it as the weights are.
Tensor AsMultiplied(CpuIsa isa, DType dtype, const Tensor& x) {
  if (isa < CpuIsa::kAvx512BFloat16 || dtype != DType::kBFloat16) return x;
  Tensor rounded(DType::kFloat32, x.view().shape);
  for (int64_t i = 0; i < x.view().shape.NumElements(); ++i) {
    rounded.view().Data<float>()[i] = BFloat16ToFloat(FloatToBFloat16(x.view().Data<float>()[i]));
  }
  return rounded;
}

// Largest deviation from the double-precision product with the weights as stored, relative to the sum of magnitudes.
double WorstError(const TensorView& x, const PackedMatrix& weight, const TensorView& y) {
  double worst = 0;
  std::vector<float> row(static_cast<size_t>(weight.k()));
  for (int64_t n = 0; n < weight.n(); ++n) {
    weight.UnpackRow(n, row);
    for (int64_t m = 0; m < x.dim(0); ++m) {
      double sum = 0;
      double magnitude = 1e-30;
      for (int64_t k = 0; k < weight.k(); ++k) {
        const double term = static_cast<double>(x.Row<float>(m)[k]) * static_cast<double>(row[static_cast<size_t>(k)]);
        sum += term;
        magnitude += std::abs(term);
      }
      worst = std::max(worst, std::abs(sum - static_cast<double>(y.Row<float>(m)[n])) / magnitude);
    }
  }
  return worst;
}

constexpr DType kStorages[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

TEST(PackedMatrix, "gives back every row it was given, rounded to its dtype") {
  for (DType dtype : kStorages) {
    const Tensor weight = RandomMatrix(37, 101, 1);
    PackedMatrix packed({.dtype = dtype}, 37, 101, Slices(101, 2));
    // In parts that begin inside a panel.
    packed.PackRows(0, weight.view().Rows(0, 5));
    packed.PackRows(5, weight.view().Rows(5, 37));
    std::vector<float> row(101);
    for (int64_t n = 0; n < 37; ++n) {
      packed.UnpackRow(n, row);
      for (size_t k = 0; k < row.size(); ++k) {
        const float value = weight.view().Row<float>(n)[k];
        const float expected = dtype == DType::kFloat32    ? value
                               : dtype == DType::kBFloat16 ? BFloat16ToFloat(FloatToBFloat16(value))
                                                           : Float16ToFloat(FloatToFloat16(value));
        EXPECT_EQ(row[k], expected);
      }
    }
  }
}

TEST(PackedMatrix, "knows its size before it is made") {
  for (DType dtype : kStorages) {
    const PackedMatrix packed({.dtype = dtype}, 37, 101, Slices(101, 2));
    EXPECT_EQ(static_cast<int64_t>(packed.size_bytes()), PackedMatrix::SizeBytes({.dtype = dtype}, 37, Slices(101, 2)));
  }
}

TEST(Matmul, "agrees with double precision over awkward sizes, storages and slices") {
  for (CpuIsa isa : RunnableIsas()) {
    for (DType dtype : kStorages) {
      for (int64_t k : {1, 2, 7, 64, 160, 989, 1500}) {
        for (int64_t n : {1, 15, 16, 17, 111}) {
          const Tensor weight = RandomMatrix(n, k, 2);
          for (const bool sliced : {false, true}) {
            const PackedMatrix packed = Pack(dtype, weight, sliced ? Slices(k, 2) : std::vector<int64_t>{0, k});
            for (int64_t m : {1, 2, 3, 4, 5, 13, 97}) {
              const Tensor x = RandomMatrix(m, k, 3);
              const Tensor y = Product(isa, 1, x, packed);
              EXPECT_TRUE(WorstError(AsMultiplied(isa, dtype, x), packed, y) < 2e-6);
            }
          }
        }
      }
    }
  }
}

TEST(Matmul, "gives each row what it gets alone, for every batch and number of threads") {
  for (CpuIsa isa : RunnableIsas()) {
    for (DType dtype : kStorages) {
      const Tensor weight = RandomMatrix(200, 1303, 4);
      const PackedMatrix packed = Pack(dtype, weight, Slices(1303, 16));
      const Tensor x = RandomMatrix(130, 1303, 5);
      const Tensor whole = Product(isa, 1, x, packed);
      EXPECT_TRUE(SameBits(Product(isa, 3, x, packed), whole));
      for (int64_t m = 1; m <= 20; ++m) {
        EXPECT_TRUE(SameBits(Product(isa, 1, x.view().Rows(7, 7 + m), packed), whole.view().Rows(7, 7 + m)));
      }
      for (int64_t row = 0; row < 130; row += 13) {
        EXPECT_TRUE(SameBits(Product(isa, 1, x.view().Rows(row, row + 1), packed), whole.view().Rows(row, row + 1)));
      }
    }
  }
}

TEST(Matmul, "gives rows of a large batch over a long K what they get alone") {
  // More than a block of rows, more than a group of panels, and slices of which few or one at a time pass the caches.
  struct Case {
    int64_t m;
    int64_t n;
    int64_t k;
  };
  for (const Case& c :
       {Case{300, 48, 2100}, Case{300, 48, 8200}, Case{300, 48, 20000}, Case{200, 600, 8192}, Case{100, 600, 8192}}) {
    const Tensor weight = RandomMatrix(c.n, c.k, 20);
    const Tensor x = RandomMatrix(c.m, c.k, 21);
    for (const CpuIsa isa : RunnableIsas()) {
      if (isa == CpuIsa::kScalar) continue;  // too slow
      for (const bool sliced : {false, true}) {
        const auto slices = sliced ? Slices(c.k, 16) : std::vector<int64_t>{0, c.k};
        const PackedMatrix packed = Pack(DType::kBFloat16, weight, slices);
        const Tensor whole = Product(isa, 2, x, packed);
        for (const int64_t row : {int64_t{0}, int64_t{31}, c.m - 1}) {
          EXPECT_TRUE(SameBits(Product(isa, 1, x.view().Rows(row, row + 1), packed), whole.view().Rows(row, row + 1)));
        }
        // All others in batches that are small enough to be streamed.
        for (int64_t row = 0; row < c.m; row += 20) {
          const int64_t end = std::min(row + 20, c.m);
          EXPECT_TRUE(SameBits(Product(isa, 2, x.view().Rows(row, end), packed), whole.view().Rows(row, end)));
        }
      }
    }
  }
}

TEST(Matmul, "sums in AMX tiles as documented: even and odd positions of 32, upwards, then both onto the sum") {
  if (DetectCpuIsa() != CpuIsa::kAmx) SKIP("no AMX here");
  constexpr int64_t kK = 96;
  const Tensor x = AsMultiplied(CpuIsa::kAmx, DType::kBFloat16, RandomMatrix(20, kK, 30));
  const PackedMatrix weight = Pack(DType::kBFloat16, RandomMatrix(40, kK, 31), {0, kK});
  const Tensor y = Product(CpuIsa::kAmx, 1, x, weight);
  std::vector<float> w(static_cast<size_t>(kK));
  for (int64_t n = 0; n < weight.n(); ++n) {
    weight.UnpackRow(n, w);
    for (int64_t m = 0; m < x.view().dim(0); ++m) {
      const float* row = x.view().Row<float>(m);
      float sum = 0;
      for (int64_t tile = 0; tile < kK; tile += 32) {
        float halves[2] = {0, 0};
        for (int64_t k = tile; k < tile + 32; ++k) {
          halves[k % 2] = std::fma(row[k], w[static_cast<size_t>(k)], halves[k % 2]);
        }
        sum += halves[0] + halves[1];
      }
      EXPECT_EQ(y.view().Row<float>(m)[n], sum);
    }
  }
}

TEST(Matmul, "gives AVX2 and AVX-512 the same bits") {
  if (DetectCpuIsa() < CpuIsa::kAvx512) SKIP("no AVX-512 here");
  const Tensor weight = RandomMatrix(50, 700, 6);
  const Tensor x = RandomMatrix(9, 700, 7);
  for (DType dtype : kStorages) {
    const PackedMatrix packed = Pack(dtype, weight, Slices(700, 16));
    EXPECT_TRUE(SameBits(Product(CpuIsa::kAvx512, 1, x, packed), Product(CpuIsa::kAvx2, 1, x, packed)));
  }
}

TEST(Matmul, "does not depend on the number of ranks that share out K, even unevenly") {
  for (CpuIsa isa : RunnableIsas()) {
    for (int64_t k : {8, 150, 640, 1333}) {
      const Tensor weight = RandomMatrix(70, k, 8);
      const Tensor x = RandomMatrix(6, k, 9);
      const Tensor alone = Product(isa, 1, x, Pack(DType::kBFloat16, weight, Slices(k, 16)));
      for (int size : {2, 4, 8}) {
        std::vector<Tensor> parts;
        for (int rank = 0; rank < size; ++rank) {
          const TensorParallel tp{rank, size, nullptr};
          const Range shard = tp.Shard(k, 16);
          PackedMatrix packed({.dtype = DType::kBFloat16}, 70, shard.size(), tp.ShardSlices(k, 16));
          packed.PackRows(0, weight.view().Columns(shard.begin, shard.end));
          parts.push_back(Product(isa, 1, x.view().Columns(shard.begin, shard.end), packed));
        }
        for (int step = 1; step < size; step *= 2) {
          for (int rank = 0; rank < size; rank += 2 * step) {
            float* sum = parts[static_cast<size_t>(rank)].view().Data<float>();
            const float* other = parts[static_cast<size_t>(rank + step)].view().Data<float>();
            for (int64_t i = 0; i < 6 * 70; ++i) sum[i] = sum[i] + other[i];
          }
        }
        EXPECT_TRUE(SameBits(parts[0], alone));
      }
    }
  }
}

TEST(Matmul, "adds the bias last, reads strided rows and never multiplies what lies beyond a row") {
  for (CpuIsa isa : RunnableIsas()) {
    for (int64_t m : {1, 9, 40}) {
      const Tensor weight = RandomMatrix(33, 63, 10);
      const PackedMatrix packed = Pack(DType::kBFloat16, weight, {0, 63});
      const Tensor wide = RandomMatrix(m, 80, 11);
      for (int64_t row = 0; row < m; ++row) wide.view().Row<float>(row)[63] = NAN;
      const Tensor bias = RandomMatrix(33, 1, 12);
      const TensorView bias_view = bias.view().Reshaped({33});
      const Tensor plain = Product(isa, 1, wide.view().Columns(0, 63), packed);
      const Tensor biased = Product(isa, 1, wide.view().Columns(0, 63), packed, &bias_view);
      for (int64_t row = 0; row < m; ++row) {
        for (int64_t n = 0; n < 33; ++n) {
          EXPECT_EQ(biased.view().Row<float>(row)[n], plain.view().Row<float>(row)[n] + bias_view.Data<float>()[n]);
        }
      }
    }
  }
}

TEST(Matmul, "takes shards without rows or columns") {
  for (CpuIsa isa : RunnableIsas()) {
    for (DType dtype : kStorages) {
      for (int64_t m : {3, 40}) {
        const Tensor x = RandomMatrix(m, 16, 13);
        const PackedMatrix no_rows({.dtype = dtype}, 0, 16, {0, 16});
        EXPECT_EQ(Product(isa, 1, x, no_rows).view().dim(1), int64_t{0});
        const PackedMatrix no_columns({.dtype = dtype}, 5, 0, {0, 0, 0});
        const Tensor y = Product(isa, 1, x.view().Columns(0, 0), no_columns);
        for (int64_t i = 0; i < 5 * m; ++i) EXPECT_EQ(y.view().Data<float>()[i], 0.0f);
      }
    }
  }
}

TEST(GatedMatmul, "joins two products by their activation, the same bits for every number of threads") {
  struct Case {
    int64_t size;
    int64_t k;
  };
  for (CpuIsa isa : RunnableIsas()) {
    for (DType dtype : kStorages) {
      for (const auto& [size, k] : {Case{1, 500}, Case{16, 500}, Case{47, 500}, Case{160, 500}, Case{47, 1100}}) {
        const int64_t half = ops::GatedHalf(size);
        const Tensor weight = RandomMatrix(2 * half, k, 11);
        const Tensor bias = RandomMatrix(1, 2 * half, 12);
        const TensorView flat_bias(bias.view().data, DType::kFloat32, {2 * half});
        const PackedMatrix packed = Pack(dtype, weight, {0, k});
        for (const int64_t m : {1, 5, 33, 100, 270}) {
          if (m > 100 && size != 47) continue;
          const Tensor x = RandomMatrix(m, k, 13);
          const Tensor both = Product(isa, 1, x, packed, &flat_bias);
          Tensor one_thread(DType::kFloat32, {m, size});
          Tensor three_threads(DType::kFloat32, {m, size});
          Stream one(1, true, isa);
          Stream three(3, true, isa);
          ops::GatedMatmul(one, ops::Activation::kGelu, x, packed, one_thread, &flat_bias);
          ops::GatedMatmul(three, ops::Activation::kGelu, x, packed, three_threads, &flat_bias);
          EXPECT_TRUE(SameBits(one_thread, three_threads));
          for (int64_t row = 0; row < m; ++row) {
            for (int64_t j = 0; j < size; ++j) {
              const float gate = both.view().Row<float>(row)[j];
              const float up = both.view().Row<float>(row)[half + j];
              const double expected = 0.5 * gate * std::erfc(-gate / std::sqrt(2.0)) * up;
              EXPECT_NEAR(one_thread.view().Row<float>(row)[j], expected, 2e-6 * (1 + std::abs(expected)));
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace heddle
