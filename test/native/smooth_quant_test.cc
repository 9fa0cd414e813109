// Inputs' size moved from norms into weights.
#include "compress/smooth_quant.h"

#include "compress_testing.h"

namespace heddle {
namespace {

using test::MatricesFile;
using test::RandomMatrix;
using test::TempFolder;
using test::TestMatrix;

constexpr int64_t kColumns = 24;

// A checkpoint of one matrix and the norm before it, stored in `dtype`.
struct Layer {
  explicit Layer(const char* dtype) {
    matrix = RandomMatrix("model.layers.0.self_attn.q_proj.weight", 20, kColumns, 1);
    for (int64_t row = 0; row < matrix.rows; ++row) matrix.values[static_cast<size_t>(row * kColumns + 5)] = 0;
    const TestMatrix vector = RandomMatrix("", 1, kColumns, 2);
    std::string data = test::FloatBytes(matrix.values);
    const std::string matrix_end = std::to_string(data.size());
    if (dtype == std::string("BF16")) {
      for (const float value : vector.values) {
        const uint16_t bits = FloatToBFloat16(value);
        data.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
      }
    } else {
      data += test::FloatBytes(vector.values);
    }
    root.Write("config.json", "{}");
    root.Write(
        "model.safetensors",
        test::SafetensorsBytes("{" + test::TensorHeader(matrix.name, "F32", "[20,24]", "[0," + matrix_end + "]") + "," +
                                   test::TensorHeader("norm.weight", dtype, "[24]",
                                                      "[" + matrix_end + "," + std::to_string(data.size()) + "]") +
                                   "}",
                               data));
    for (int64_t i = 0; i < kColumns; ++i) largest.push_back(static_cast<float>(i * i) / 7);
  }

  Smoothing Run(float norm_offset, float alpha) {
    const SourceCheckpoint source(root.path());
    ThreadPool threads(2, true);
    Smoothing smoothing;
    Smooth(source, {{"model.layers.0.self_attn.q_proj"}, kColumns, "norm.weight"}, norm_offset, largest, alpha, threads,
           smoothing);
    stored_norm = source.ReadVector("norm.weight").values;
    return smoothing;
  }

  TempFolder root;
  TestMatrix matrix;
  std::vector<float> largest;  // of the input: nothing in column 0
  std::vector<float> stored_norm;
};

TEST(Smooth, "leaves norm times weight as it was, whatever the norm's dtype and offset are") {
  for (const char* dtype : {"F32", "BF16"}) {
    for (const float offset : {0.0f, 1.0f}) {
      Layer layer(dtype);
      const Smoothing smoothing = layer.Run(offset, 0.5f);
      const std::vector<float>& scales = smoothing.column_scales.at("model.layers.0.self_attn.q_proj");
      const std::vector<float>& norm = smoothing.norms.at("norm.weight");
      for (size_t i = 0; i < scales.size(); ++i) {
        const float before = layer.stored_norm[i] + offset;
        EXPECT_NEAR((norm[i] + offset) * scales[i], before, 1e-6 * std::abs(before));
        if (dtype == std::string("BF16")) EXPECT_EQ(BFloat16ToFloat(FloatToBFloat16(norm[i])), norm[i]);
      }
    }
  }
}

TEST(Smooth, "makes inputs and weights equally large with an alpha of a half") {
  Layer layer("F32");
  const std::vector<float> scales = layer.Run(0, 0.5f).column_scales.at("model.layers.0.self_attn.q_proj");
  for (size_t i = 1; i < scales.size(); ++i) {
    float largest_weight = 0;
    for (int64_t row = 0; row < layer.matrix.rows; ++row) {
      largest_weight = std::max(largest_weight, std::abs(layer.matrix.values[static_cast<size_t>(row * kColumns) + i]));
    }
    if (largest_weight > 0) EXPECT_NEAR(layer.largest[i] / scales[i] / (largest_weight * scales[i]), 1, 1e-4);
  }
}

TEST(Smooth, "leaves channels alone that carry nothing or that no weight reads") {
  Layer layer("F32");
  const Smoothing smoothing = layer.Run(0, 0.7f);
  for (const size_t i : {size_t{0}, size_t{5}}) {
    EXPECT_EQ(smoothing.column_scales.at("model.layers.0.self_attn.q_proj")[i], 1);
    EXPECT_EQ(smoothing.norms.at("norm.weight")[i], layer.stored_norm[i]);
  }
}

}  // namespace
}  // namespace heddle
