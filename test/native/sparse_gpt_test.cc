// Pruning by second moments, and the algebra below it.
#include "compress/sparse_gpt.h"

#include "compress/matrix_algebra.h"
#include "compress/rows.h"
#include "tensor_testing.h"

namespace heddle {
namespace {

using test::Random;

Tensor RandomTensor(Random& random, int64_t rows, int64_t columns) {
  Tensor tensor(DType::kFloat32, {rows, columns});
  for (int64_t i = 0; i < rows * columns; ++i) tensor.view().Data<float>()[i] = random.Uniform(-1, 1);
  return tensor;
}

// Inputs in which neighbours are alike, as a model's are.
Tensor CorrelatedInputs(Random& random, int64_t tokens, int64_t columns) {
  Tensor inputs = RandomTensor(random, tokens, columns);
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = inputs.view().Row<float>(t);
    for (int64_t i = 1; i < columns; ++i) row[i] = 0.8f * row[i - 1] + 0.4f * row[i];
  }
  return inputs;
}

Tensor SecondMoments(const Tensor& inputs) {
  const int64_t n = inputs.view().dim(1);
  Tensor moments(DType::kFloat32, {n, n});
  for (int64_t t = 0; t < inputs.view().dim(0); ++t) {
    const float* x = inputs.view().Row<float>(t);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) moments.view().Row<float>(i)[j] += x[i] * x[j];
    }
  }
  return moments;
}

Tensor CopyOf(const Tensor& tensor) {
  const TensorView& view = tensor.view();
  Tensor copy(DType::kFloat32, view.shape);
  std::copy_n(view.Data<float>(), view.shape.NumElements(), copy.view().Data<float>());
  return copy;
}

// Of the outputs of a layer: the squared error that other weights make.
double OutputError(const Tensor& inputs, const Tensor& weights, const Tensor& others) {
  double error = 0;
  const int64_t columns = inputs.view().dim(1);
  for (int64_t t = 0; t < inputs.view().dim(0); ++t) {
    for (int64_t r = 0; r < weights.view().dim(0); ++r) {
      double difference = 0;
      for (int64_t i = 0; i < columns; ++i) {
        difference += static_cast<double>(inputs.view().Row<float>(t)[i]) *
                      (weights.view().Row<float>(r)[i] - others.view().Row<float>(r)[i]);
      }
      error += difference * difference;
    }
  }
  return error;
}

Tensor PrunedByMagnitude(const Tensor& weights) {
  Tensor pruned = CopyOf(weights);
  const auto columns = static_cast<size_t>(weights.view().dim(1));
  for (int64_t r = 0; r < weights.view().dim(0); ++r) {
    const std::span<float> row(pruned.view().Row<float>(r), columns);
    std::vector<float> scores;
    for (const float value : row) scores.push_back(std::abs(value));
    std::vector<uint8_t> mask(columns / 8 + 1);
    TwoOfFourMask(scores, mask.data());
    ApplyMask(mask.data(), row);
  }
  return pruned;
}

const std::atomic<bool> kNotCancelled = false;

TEST(MatrixAlgebra, "finds the factor of an inverse, for sizes around its blocks") {
  for (const int64_t n : {1, 4, 100, 128, 129, 260}) {
    Random random(static_cast<uint64_t>(n));
    const Tensor moments = SecondMoments(CorrelatedInputs(random, 2 * n + 8, n));
    for (int64_t i = 0; i < n; ++i) moments.view().Row<float>(i)[i] += 1;
    Stream stream(2, true, DetectCpuIsa());
    const Tensor u = CopyOf(moments);
    EXPECT_TRUE(InverseFactor(stream, u, kNotCancelled));
    // u^T u times the matrix is the identity.
    double worst = 0;
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> row(static_cast<size_t>(n));  // of u^T u
      for (int64_t k = 0; k <= i; ++k) {
        for (int64_t j = 0; j < n; ++j) {
          row[static_cast<size_t>(j)] += static_cast<double>(u.view().Row<float>(k)[i]) * u.view().Row<float>(k)[j];
        }
      }
      for (int64_t j = 0; j < n; ++j) {
        double sum = i == j ? -1 : 0;
        for (int64_t k = 0; k < n; ++k) {
          sum += row[static_cast<size_t>(k)] * moments.view().Row<float>(std::max(j, k))[std::min(j, k)];
        }
        worst = std::max(worst, std::abs(sum));
      }
    }
    EXPECT_NEAR(worst, 0, 1e-3);
  }
}

TEST(MatrixAlgebra, "says when a matrix is not positive definite") {
  Stream stream(1, true, CpuIsa::kScalar);
  const Tensor matrix(DType::kFloat32, {2, 2});
  const std::vector<float> values = {1, 0, 2, 1};
  std::copy(values.begin(), values.end(), matrix.view().Data<float>());
  EXPECT_TRUE(!InverseFactor(stream, matrix, kNotCancelled));
}

TEST(PruneSparseGpt, "leaves 2:4 weights whose outputs are nearer than those pruned by magnitude") {
  for (const int64_t columns : {64, 256}) {
    Random random(5);
    Stream stream(2, true, DetectCpuIsa());
    const Tensor inputs = CorrelatedInputs(random, 400, columns);
    const Tensor weights = RandomTensor(random, 24, columns);
    const Tensor pruned = CopyOf(weights);
    PruneSparseGpt(stream, HessianFactor(stream, SecondMoments(inputs), "down", kNotCancelled), pruned, kNotCancelled);
    EXPECT_TRUE(IsTwoOfFour({pruned.view().Data<float>(), static_cast<size_t>(24 * columns)}));
    const double by_magnitude = OutputError(inputs, weights, PrunedByMagnitude(weights));
    EXPECT_TRUE(OutputError(inputs, weights, pruned) < 0.5 * by_magnitude);
  }
}

TEST(PruneSparseGpt, "prunes the smallest of independent inputs, and moves nothing") {
  Stream stream(1, true, CpuIsa::kScalar);
  Random random(8);
  const Tensor weights = RandomTensor(random, 6, 32);
  const Tensor pruned = CopyOf(weights);
  const Tensor identity(DType::kFloat32, {32, 32});
  for (int64_t i = 0; i < 32; ++i) identity.view().Row<float>(i)[i] = 7;
  PruneSparseGpt(stream, HessianFactor(stream, identity, "down", kNotCancelled), pruned, kNotCancelled);
  const Tensor expected = PrunedByMagnitude(weights);
  EXPECT_TRUE(test::SameBits(pruned, expected));
}

TEST(HessianFactor, "refuses inputs that were not finite, as the model's fault") {
  Stream stream(1, true, CpuIsa::kScalar);
  for (const float bad : {NAN, INFINITY}) {
    const Tensor hessian(DType::kFloat32, {8, 8});
    for (int64_t i = 0; i < 8; ++i) hessian.view().Row<float>(i)[i] = i == 3 ? bad : 1;
    EXPECT_ERROR(ErrorCode::kModelFormat, HessianFactor(stream, hessian, "down", kNotCancelled));
  }
}

TEST(PruneSparseGpt, "stops when it is cancelled") {
  Stream stream(1, true, CpuIsa::kScalar);
  Random random(10);
  const Tensor weights = RandomTensor(random, 4, 16);
  const Tensor hessian = SecondMoments(CorrelatedInputs(random, 40, 16));
  const std::atomic<bool> cancelled = true;
  EXPECT_ERROR(ErrorCode::kCancelled, HessianFactor(stream, hessian, "down", cancelled));
  const HessianFactor factor(stream, hessian, "down", kNotCancelled);
  EXPECT_ERROR(ErrorCode::kCancelled, PruneSparseGpt(stream, factor, weights, cancelled));
}

TEST(PruneSparseGpt, "takes inputs that were always zero, and gives them no weight") {
  Stream stream(1, true, CpuIsa::kScalar);
  Random random(9);
  Tensor inputs = CorrelatedInputs(random, 100, 16);
  for (int64_t t = 0; t < 100; ++t) inputs.view().Row<float>(t)[3] = inputs.view().Row<float>(t)[8] = 0;
  const Tensor weights = RandomTensor(random, 5, 16);
  PruneSparseGpt(stream, HessianFactor(stream, SecondMoments(inputs), "down", kNotCancelled), weights, kNotCancelled);
  for (int64_t r = 0; r < 5; ++r) {
    const float* row = weights.view().Row<float>(r);
    EXPECT_EQ(row[3], 0);
    EXPECT_EQ(row[8], 0);
    for (int64_t i = 0; i < 16; ++i) EXPECT_TRUE(std::isfinite(row[i]));
  }
}

}  // namespace
}  // namespace heddle
