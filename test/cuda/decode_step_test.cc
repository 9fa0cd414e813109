// Decoder layers as a step of one sequence runs them: each kernel begins while those before it still work, some of them
// several kernels early, and the results are those of kernels that waited.
#include <functional>

#include "cuda_testing.h"

namespace heddle::test {
namespace {

constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;
constexpr HeddleCudaDType kBF16 = kHeddleCudaBFloat16;
constexpr int kLayers = 8;
constexpr int kHeadDim = 128;
constexpr int kBlockSize = 16;

struct Shape {
  int num_heads;
  int num_kv_heads;
  int64_t intermediate;
  int context;

  int64_t hidden() const { return int64_t{num_heads} * kHeadDim; }
  int64_t kv_size() const { return int64_t{num_kv_heads} * kHeadDim; }
  int64_t qkv_size() const { return hidden() + 2 * kv_size(); }
  int num_blocks() const { return (context + kBlockSize - 1) / kBlockSize; }
};

// All layers have the same weights and one cache, whose slot for the step's token every layer writes anew: a kernel
// that runs ahead of another reads or destroys what that one still needs.
class Layers {
 public:
  Layers(TestStream& stream, const Shape& shape)
      : stream_(stream),
        shape_(shape),
        qkv_weight_(Random(shape.qkv_size() * shape.hidden(), 0.03f)),
        o_weight_(Random(shape.hidden() * shape.hidden(), 0.03f)),
        gate_up_weight_(Random(2 * shape.intermediate * shape.hidden(), 0.03f)),
        down_weight_(Random(shape.hidden() * shape.intermediate, 0.03f)),
        norm_weight_(Random(shape.hidden(), 1, kF32)),
        cos_sin_(Random(int64_t{shape.context} * kHeadDim, 1, kF32)),
        first_residual_(Random(shape.hidden(), 1, kF32)),
        keys_(Random(CacheSize(), 1)),
        values_(Random(CacheSize(), 1)),
        residual_(Poisoned(shape.hidden(), kF32)),
        hidden_(Poisoned(shape.hidden())),
        qkv_(Poisoned(shape.qkv_size())),
        attended_(Poisoned(shape.hidden())),
        activated_(Poisoned(shape.intermediate)),
        last_(shape.context - 1),
        position_(DeviceArray::Ints(stream, {last_})),
        slot_(DeviceArray::Longs(stream, {last_})),
        starts_(DeviceArray::Ints(stream, {0, 1})),
        length_(DeviceArray::Ints(stream, {shape.context})),
        table_(DeviceArray::Ints(stream, Numbers(shape.num_blocks()))) {}

  // after_each() is called behind every op.
  void Run(const std::function<void()>& after_each) {
    after_each_ = after_each;
    Normalize(first_residual_, residual_, kF32);
    Normalize(first_residual_, hidden_, kBF16);
    for (int layer = 0; layer < kLayers; ++layer) {
      AddNorm();
      Multiply(hidden_, qkv_weight_, shape_.qkv_size(), shape_.hidden(), qkv_);
      Attend();
      Multiply(attended_, o_weight_, shape_.hidden(), shape_.hidden(), hidden_);
      AddNorm();
      const HeddleCudaGatedMatmul gated = {
          .x = Row(hidden_, shape_.hidden()),
          .gate_up = DenseWeight(Matrix(gate_up_weight_, kBF16, 2 * shape_.intermediate, shape_.hidden())),
          .bias = nullptr,
          .activation = kHeddleCudaSilu,
          .y = Row(activated_, shape_.intermediate)};
      Check(Api().gated_matmul(stream_.get(), &gated), "gated_matmul");
      Multiply(activated_, down_weight_, shape_.hidden(), shape_.intermediate, hidden_);
    }
    AddNorm();
  }

  std::vector<float> Result() const { return residual_.ToHost(); }

 private:
  static std::vector<int32_t> Numbers(int count) {
    std::vector<int32_t> numbers;
    for (int i = 0; i < count; ++i) numbers.push_back(i);
    return numbers;
  }
  int64_t CacheSize() const { return shape_.num_blocks() * kBlockSize * shape_.kv_size(); }
  DeviceArray Random(int64_t count, float deviation, HeddleCudaDType dtype = kBF16) {
    return DeviceArray::From(stream_, dtype, RandomFloats(static_cast<size_t>(count), ++seed_, deviation));
  }
  DeviceArray Poisoned(int64_t count, HeddleCudaDType dtype = kBF16) {
    return DeviceArray::Poisoned(stream_, dtype, static_cast<size_t>(count));
  }
  static HeddleCudaMatrix Row(const DeviceArray& array, int64_t size, HeddleCudaDType dtype = kBF16) {
    return Matrix(array, dtype, 1, size);
  }
  HeddleCudaMatrix QkvColumns(int64_t begin, int64_t size) const {
    HeddleCudaMatrix columns = Matrix(qkv_, kBF16, 1, size, shape_.qkv_size());
    columns.data = static_cast<char*>(columns.data) + begin * 2;
    return columns;
  }

  void Check(HeddleCudaStatus status, const char* op) const {
    MustSucceed(status, op);
    after_each_();
  }
  void Normalize(const DeviceArray& x, const DeviceArray& y, HeddleCudaDType y_dtype) const {
    const HeddleCudaRmsNorm op = {.x = Row(x, shape_.hidden(), kF32),
                                  .num_heads = 1,
                                  .weight = norm_weight_.As<float>(),
                                  .epsilon = 1e-5f,
                                  .y = Row(y, shape_.hidden(), y_dtype)};
    Check(Api().rms_norm(stream_.get(), &op), "rms_norm");
  }
  void AddNorm() const {
    const HeddleCudaAddRmsNorm op = {.x = Row(hidden_, shape_.hidden()),
                                     .residual = Row(residual_, shape_.hidden(), kF32),
                                     .weight = norm_weight_.As<float>(),
                                     .epsilon = 1e-5f,
                                     .y = Row(hidden_, shape_.hidden())};
    Check(Api().add_rms_norm(stream_.get(), &op), "add_rms_norm");
  }
  void Multiply(const DeviceArray& x, const DeviceArray& weight, int64_t n, int64_t k, const DeviceArray& y) const {
    const HeddleCudaMatmul op = {
        .x = Row(x, k), .weight = DenseWeight(Matrix(weight, kBF16, n, k)), .bias = nullptr, .y = Row(y, n)};
    Check(Api().matmul(stream_.get(), &op), "matmul");
  }
  void Attend() const {
    const HeddleCudaKVCache cache = {.keys = keys_.data(),
                                     .values = values_.data(),
                                     .dtype = kBF16,
                                     .num_blocks = shape_.num_blocks(),
                                     .num_kv_heads = shape_.num_kv_heads,
                                     .block_size = kBlockSize,
                                     .head_dim = kHeadDim};
    const HeddleCudaRotateAndStore rotate = {.positions = position_.As<int32_t>(),
                                             .cos_sin = cos_sin_.As<float>(),
                                             .max_positions = shape_.context,
                                             .rotary_dim = kHeadDim,
                                             .q = QkvColumns(0, shape_.hidden()),
                                             .k = QkvColumns(shape_.hidden(), shape_.kv_size()),
                                             .v = QkvColumns(shape_.hidden() + shape_.kv_size(), shape_.kv_size()),
                                             .slot_mapping = slot_.As<int64_t>(),
                                             .cache = cache};
    Check(Api().rotate_and_store(stream_.get(), &rotate), "rotate_and_store");
    const HeddleCudaPagedAttention attention = {.q = QkvColumns(0, shape_.hidden()),
                                                .cache = cache,
                                                .query_start_loc = starts_.As<int32_t>(),
                                                .seq_lens = length_.As<int32_t>(),
                                                .block_table = table_.As<int32_t>(),
                                                .block_table_stride = shape_.num_blocks(),
                                                .num_seqs = 1,
                                                .max_query_len = 1,
                                                .max_seq_len = shape_.context,
                                                .num_heads = shape_.num_heads,
                                                .scale = 0.0883883f,
                                                .sliding_window = 0,
                                                .soft_cap = 0,
                                                .out = Row(attended_, shape_.hidden())};
    Check(Api().paged_attention(stream_.get(), &attention), "paged_attention");
  }

  TestStream& stream_;
  Shape shape_;
  uint64_t seed_ = 0;
  DeviceArray qkv_weight_, o_weight_, gate_up_weight_, down_weight_, norm_weight_, cos_sin_, first_residual_;
  DeviceArray keys_, values_, residual_, hidden_, qkv_, attended_, activated_;
  int32_t last_;
  DeviceArray position_, slot_, starts_, length_, table_;
  std::function<void()> after_each_;
};

TEST(CudaDecodeStep, "has the bits of ops that waited for each other, launched one by one and as a graph") {
  TestStream stream;
  const Shape shapes[] = {{2, 1, 96, 5}, {8, 2, 2816, 200}, {32, 8, 3584, 1000}};
  for (const Shape& shape : shapes) {
    Layers layers(stream, shape);
    layers.Run([&] { stream.Synchronize(); });
    const std::vector<float> expected = layers.Result();
    EXPECT_TRUE(RelativeError(expected, {expected.begin(), expected.end()}) == 0);
    for (int round = 0; round < 5; ++round) {
      layers.Run([] {});
      EXPECT_TRUE(layers.Result() == expected);
    }
    HeddleCudaGraph* graph = nullptr;
    EXPECT_OK(Api().capture_begin(stream.get()));
    layers.Run([] {});
    EXPECT_OK(Api().capture_end(stream.get(), &graph));
    for (int round = 0; round < 20; ++round) {
      EXPECT_OK(Api().graph_launch(stream.get(), graph));
      EXPECT_TRUE(layers.Result() == expected);
    }
    EXPECT_OK(Api().graph_destroy(graph));
  }
}

}  // namespace
}  // namespace heddle::test
