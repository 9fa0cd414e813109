#include "layers/weight_upload.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "fake_cuda.h"
#include "loader_testing.h"
#include "temp_folder.h"
#include "test.h"

namespace heddle {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{1} << 20;
constexpr int kNumThreads = 3;

// A stream on the first GPU.
class Gpu {
 public:
  Gpu() {
    test::RequireDevice();
    stream_ =
        std::make_unique<Stream>(kNumThreads, true, CpuIsa::kScalar, std::make_unique<CudaStream>(0, kWorkspaceBytes));
  }

  Stream& stream() const { return *stream_; }
  CudaStream& cuda() const { return *stream_->cuda(); }

 private:
  std::unique_ptr<Stream> stream_;
};

// Each element differs from its neighbours, and is exact in every dtype.
float Value(int64_t index) { return static_cast<float>(index % 251); }

class Counting : public StoredTensor {
 public:
  using StoredTensor::StoredTensor;

 private:
  void ReadElements(int64_t begin, int64_t count, void* destination) const override {
    for (int64_t i = 0; i < count; ++i) StoreFloat(dtype(), destination, i, Value(begin + i));
  }
};

// A matrix of the device, NaN until something is uploaded.
class DeviceMatrix {
 public:
  DeviceMatrix(const Gpu& gpu, DType dtype, int64_t rows, int64_t row_stride)
      : cuda_(gpu.cuda()), host_(dtype, {rows, row_stride}), device_(dtype, {rows, row_stride}, gpu.cuda()) {
    for (int64_t i = 0; i < rows * row_stride; ++i) StoreFloat(dtype, host_.view().data, i, NAN);
    cuda_.Copy(device_.view().data, host_.view().data, Bytes());
  }

  TensorView Block(Range rows, int64_t columns) const {
    return device_.view().Rows(rows.begin, rows.end).Columns(0, columns);
  }

  // Waits. How many elements of the first `columns` of `rows` are not what `expected` says of their place in the block,
  // or beside it are not what they were.
  template <typename Expected>
  int64_t CountWrong(Range rows, int64_t columns, const Expected& expected) const {
    cuda_.Copy(host_.view().data, device_.view().data, Bytes());
    cuda_.Synchronize();
    int64_t wrong = 0;
    const int64_t stride = host_.view().dim(1);
    for (int64_t row = 0; row < host_.view().dim(0); ++row) {
      for (int64_t column = 0; column < stride; ++column) {
        const float value = LoadFloat(host_.view().dtype, host_.view().data, row * stride + column);
        const bool inside = row >= rows.begin && row < rows.end && column < columns;
        wrong += inside ? value != expected(row - rows.begin, column) : !std::isnan(value);
      }
    }
    return wrong;
  }

 private:
  size_t Bytes() const { return static_cast<size_t>(host_.view().shape.NumElements()) * DTypeSize(host_.view().dtype); }

  CudaStream& cuda_;
  Tensor host_;
  Tensor device_;
};

const std::atomic<bool> kNotCancelled{false};

TEST(WeightUploader, "brings matrices larger than all of its buffers to the device") {
  const Gpu gpu;
  WeightUploader uploader(gpu.stream(), kNotCancelled);
  constexpr int64_t kRows = 40'001;
  constexpr int64_t kColumns = 1031;
  const DeviceMatrix matrix(gpu, DType::kBFloat16, kRows, kColumns);
  uploader.Upload(Counting(DType::kBFloat16, {kRows, kColumns}), {0, kRows}, {0, kColumns},
                  matrix.Block({0, kRows}, kColumns));
  EXPECT_EQ(matrix.CountWrong({0, kRows}, kColumns,
                              [](int64_t row, int64_t column) { return Value(row * kColumns + column); }),
            0);
}

TEST(WeightUploader, "brings one matrix after another to where they belong, each of another shape") {
  const Gpu gpu;
  WeightUploader uploader(gpu.stream(), kNotCancelled);
  const DeviceMatrix matrix(gpu, DType::kFloat16, 500, 777);
  int64_t at = 0;
  for (const int64_t rows : {1, 300, 7, 192}) {
    uploader.Upload(Counting(DType::kFloat16, {rows, 777}), {0, rows}, {0, 777}, matrix.Block({at, at + rows}, 777));
    at += rows;
  }
  const auto expected = [](int64_t row, int64_t column) {
    const int64_t begin = row < 1 ? 0 : row < 301 ? 1 : row < 308 ? 301 : 308;
    return Value((row - begin) * 777 + column);
  };
  EXPECT_EQ(matrix.CountWrong({0, 500}, 777, expected), 0);
}

TEST(WeightUploader, "takes a block of rows and columns, into padded rows, and touches nothing else") {
  const Gpu gpu;
  WeightUploader uploader(gpu.stream(), kNotCancelled);
  constexpr Range kRows{13, 913};
  constexpr Range kColumns{70, 171};
  const DeviceMatrix matrix(gpu, DType::kBFloat16, 1000, 104);
  uploader.Upload(Counting(DType::kBFloat16, {1000, 2000}), kRows, kColumns, matrix.Block({50, 950}, kColumns.size()));
  const auto expected = [&](int64_t row, int64_t column) {
    return Value((kRows.begin + row) * 2000 + kColumns.begin + column);
  };
  EXPECT_EQ(matrix.CountWrong({50, 950}, kColumns.size(), expected), 0);
}

TEST(WeightUploader, "takes rows that are longer than a buffer") {
  const Gpu gpu;
  WeightUploader uploader(gpu.stream(), kNotCancelled);
  constexpr int64_t kColumns = 9'000'011;
  const DeviceMatrix matrix(gpu, DType::kBFloat16, 5, kColumns);
  uploader.Upload(Counting(DType::kBFloat16, {5, kColumns}), {0, 5}, {0, kColumns}, matrix.Block({0, 5}, kColumns));
  EXPECT_EQ(
      matrix.CountWrong({0, 5}, kColumns, [](int64_t row, int64_t column) { return Value(row * kColumns + column); }),
      0);
}

TEST(WeightUploader, "converts to the dtype of the device's matrix") {
  const Gpu gpu;
  WeightUploader uploader(gpu.stream(), kNotCancelled);
  for (const DType from : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const DType to : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      const DeviceMatrix matrix(gpu, to, 600, 1001);
      uploader.Upload(Counting(from, {600, 1001}), {0, 600}, {0, 1001}, matrix.Block({0, 600}, 1001));
      EXPECT_EQ(
          matrix.CountWrong({0, 600}, 1001, [](int64_t row, int64_t column) { return Value(row * 1001 + column); }), 0);
    }
  }
}

// Rows whose groups of four have two values other than zero at most; each row's largest is its first, 127.
class SparseRows : public StoredTensor {
 public:
  explicit SparseRows(const Shape& shape) : StoredTensor(DType::kFloat32, shape) {}
  static float At(int64_t row, int64_t column) {
    if (column < 4) return column == 0 ? 127.0f : 0.0f;  // so that scales are 1
    const bool zero = column % 4 == (row + column / 4) % 4 || column % 4 == (row + column / 4 + 1) % 4;
    return zero ? 0.0f : static_cast<float>((row * 31 + column) % 120 + 3);
  }

 private:
  void ReadElements(int64_t begin, int64_t count, void* destination) const override {
    for (int64_t i = 0; i < count; ++i) {
      static_cast<float*>(destination)[i] = At((begin + i) / shape()[1], (begin + i) % shape()[1]);
    }
  }
};

// The host's copy of what lies at `view`.
template <typename T>
std::vector<T> FromDevice(CudaStream& cuda, const TensorView& view) {
  std::vector<T> host(static_cast<size_t>(view.dim(0) * view.row_stride));
  cuda.Copy(host.data(), view.data, host.size() * sizeof(T));
  cuda.Synchronize();
  return host;
}

TEST(WeightUploader, "brings a shard of a matrix that becomes int8, 2:4 sparse or both") {
  const Gpu gpu;
  WeightUploader uploader(gpu.stream(), kNotCancelled);
  constexpr Range kRows{2, 702};
  constexpr Range kColumns{64, 1128};
  for (const MatrixFormat& format :
       {MatrixFormat{.dtype = DType::kInt8}, MatrixFormat{.dtype = DType::kInt8, .sparse = true},
        MatrixFormat{.dtype = DType::kBFloat16, .sparse = true}}) {
    const PackedMatrix matrix(format, 710, kColumns.size(), {0, kColumns.size()}, MatrixLayout::kRows, &gpu.cuda());
    uploader.Upload("w", SparseRows({800, 2048}), kRows, kColumns, 10, matrix);
    const TensorView rows = matrix.Rows();
    const bool int8 = format.dtype == DType::kInt8;
    const auto bytes = int8 ? FromDevice<int8_t>(gpu.cuda(), rows) : std::vector<int8_t>();
    const auto words = int8 ? std::vector<uint16_t>() : FromDevice<uint16_t>(gpu.cuda(), rows);
    const auto value = [&](int64_t row, int64_t i) {
      const auto at = static_cast<size_t>(row * rows.row_stride + i);
      return int8 ? static_cast<float>(bytes[at]) : BFloat16ToFloat(words[at]);
    };
    const TensorView metadata = matrix.RowMetadata();
    const auto nibbles = format.sparse ? FromDevice<uint8_t>(gpu.cuda(), metadata) : std::vector<uint8_t>();
    int64_t wrong = 0;
    for (int64_t row = 0; row < kRows.size(); ++row) {
      std::vector<float> dense(static_cast<size_t>(kColumns.size()), 0.0f);
      for (int64_t i = 0; i < rows.dim(1); ++i) {
        int64_t column = i;
        if (format.sparse) {
          const uint8_t byte = nibbles[static_cast<size_t>((row + 10) * metadata.row_stride + i / 4)];
          column = i / 2 * 4 + (byte >> (i / 2 % 2 * 4 + i % 2 * 2) & 3);
        }
        dense[static_cast<size_t>(column)] = value(row + 10, i);
      }
      for (int64_t column = 0; column < kColumns.size(); ++column) {
        wrong += dense[static_cast<size_t>(column)] != SparseRows::At(kRows.begin + row, kColumns.begin + column);
      }
    }
    EXPECT_EQ(wrong, 0);
    if (!int8) continue;
    const std::vector<float> scales = FromDevice<float>(gpu.cuda(), matrix.RowScales());
    EXPECT_EQ(std::count(scales.begin() + 10, scales.end(), 1.0f), kRows.size());
  }
}

TEST(WeightUploader, "says that a file has become too short, and goes on with others") {
  const Gpu gpu;
  const test::TempFolder folder;
  constexpr int64_t kRows = 8192;
  constexpr int64_t kColumns = 1024;
  const std::string header =
      "{" + test::TensorHeader("a", "BF16", "[8192,1024]", "[0," + std::to_string(kRows * kColumns * 2) + "]") + "}";
  folder.Write("model.safetensors", test::SafetensorsBytes(header, std::string(kRows * kColumns * 2, 'a')));
  const auto source = OpenCheckpoint(folder.path());
  const auto stored = source->Get("a", {kRows, kColumns});
  folder.Write("model.safetensors", test::SafetensorsBytes(header, std::string(1000, 'a')));

  WeightUploader uploader(gpu.stream(), kNotCancelled);
  const DeviceMatrix matrix(gpu, DType::kBFloat16, kRows, kColumns);
  const TensorView to = matrix.Block({0, kRows}, kColumns);
  EXPECT_CONTAINS(test::FormatError([&] {
                    uploader.Upload(*stored, {0, kRows}, {0, kColumns}, to);
                  }),
                  "while it was read");
  uploader.Upload(Counting(DType::kBFloat16, {kRows, kColumns}), {0, kRows}, {0, kColumns}, to);
  EXPECT_EQ(matrix.CountWrong({0, kRows}, kColumns,
                              [](int64_t row, int64_t column) { return Value(row * kColumns + column); }),
            0);
}

TEST(WeightUploader, "stops when loading is cancelled") {
  const Gpu gpu;
  std::atomic<bool> cancelled{true};
  WeightUploader uploader(gpu.stream(), cancelled);
  const DeviceMatrix matrix(gpu, DType::kBFloat16, 10, 10);
  const Counting stored(DType::kBFloat16, {10, 10});
  EXPECT_EQ(test::FormatError([&] {
              uploader.Upload(stored, {0, 10}, {0, 10}, matrix.Block({0, 10}, 10));
            }),
            ErrorCodeName(ErrorCode::kCancelled));
}

TEST(WeightUploader, "waits for a buffer's copy no longer than the stream's limit") {
  test::FakeCuda& fake = test::TheFakeCuda();
  Stream stream(1, true, CpuIsa::kScalar,
                std::make_unique<CudaStream>(0, kWorkspaceBytes, WaitLimits{.timeout = std::chrono::milliseconds(30)}));
  const Tensor to(DType::kFloat32, {10, 10}, *stream.cuda());
  const Counting stored(DType::kFloat32, {10, 10});
  WeightUploader uploader(stream, kNotCancelled);
  const auto use_all_buffers = [&] {
    for (int i = 0; i < 100; ++i) uploader.Upload(stored, {0, 10}, {0, 10}, to.view());
  };
  use_all_buffers();
  fake.devices[0].state = test::FakeState::kStalled;
  EXPECT_ERROR(ErrorCode::kCommTimeout, use_all_buffers());
  fake.devices[0].state = test::FakeState::kRunning;
}

}  // namespace
}  // namespace heddle
