// Small checkpoints for the tests of csrc/compress.
#pragma once

#include <string>
#include <vector>

#include "loader_testing.h"
#include "temp_folder.h"
#include "tensor_testing.h"

namespace heddle::test {

struct TestMatrix {
  std::string name;
  int64_t rows;
  int64_t columns;
  std::vector<float> values;
};

inline TestMatrix RandomMatrix(const std::string& name, int64_t rows, int64_t columns, uint64_t seed) {
  Random random(seed);
  TestMatrix matrix{name, rows, columns, {}};
  for (int64_t i = 0; i < rows * columns; ++i) matrix.values.push_back(random.Uniform(-1, 1));
  return matrix;
}

// A file of float32 matrices.
inline std::string MatricesFile(const std::vector<TestMatrix>& matrices) {
  std::string header;
  std::string data;
  for (const TestMatrix& matrix : matrices) {
    const std::string begin = std::to_string(data.size());
    data += FloatBytes(matrix.values);
    const std::string shape = "[" + std::to_string(matrix.rows) + "," + std::to_string(matrix.columns) + "]";
    header += (header.empty() ? "{" : ",") +
              TensorHeader(matrix.name, "F32", shape, "[" + begin + "," + std::to_string(data.size()) + "]");
  }
  return SafetensorsBytes(header + "}", data);
}

}  // namespace heddle::test
