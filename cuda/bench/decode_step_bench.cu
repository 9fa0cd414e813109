// A decoding step of one sequence with the shape of Llama 3.1 8B (bfloat16, context kContext), kernel by kernel as the
// engine launches it, in one CUDA graph, against a kernel that only reads, measured in the same run. One line of JSON a
// figure.
//
// Every layer has weights and a cache of its own. The step is measured whole, and with kernels left out, so that the
// differences tell what they cost where they stand; then each product alone, on one layer's weights after another's.
// Bytes are those of the weights.
#include <numeric>

#include "bench/ceilings.cuh"

namespace heddle::bench {
namespace {

constexpr int kLayers = 32;
constexpr int64_t kHidden = 4096;
constexpr int64_t kIntermediate = 14336;
constexpr int64_t kVocabulary = 128256;
constexpr int kHeads = 32;
constexpr int kKVHeads = 8;
constexpr int kHeadDim = 128;
constexpr int64_t kQSize = kHeads * kHeadDim;
constexpr int64_t kKVSize = kKVHeads * kHeadDim;
constexpr int64_t kQkvSize = kQSize + 2 * kKVSize;
constexpr int kContext = 200;
constexpr int kBlockSize = 16;
constexpr int kBlocks = (kContext + kBlockSize - 1) / kBlockSize;

int64_t BytesOf(const HeddleCudaMatrix& weight) { return weight.num_rows * weight.size * 2; }

// Which kernels stand between the products.
struct Parts {
  bool norms;
  bool attention;  // with what rotates and stores
};

// The model's weights and what a step works on.
class Step {
 public:
  struct Layer {
    HeddleCudaMatrix qkv, o, gate_up, down, keys, values;
  };

  explicit Step(Device& device) : device_(device) {
    constexpr float kDeviation = 0.02f;
    for (Layer& layer : layers_) {
      layer = {device.Random(kQkvSize, kHidden, kDeviation),          device.Random(kHidden, kQSize, kDeviation),
               device.Random(2 * kIntermediate, kHidden, kDeviation), device.Random(kHidden, kIntermediate, kDeviation),
               device.Random(kBlocks * kBlockSize, kKVSize, 1),       device.Random(kBlocks * kBlockSize, kKVSize, 1)};
    }
    head_ = device.Random(kVocabulary, kHidden, kDeviation);
    hidden_ = device.Random(1, kHidden, 1);
    residual_ = device.Random(1, kHidden, 1, kF32);
    qkv_ = device.Random(1, kQkvSize, 1);
    attended_ = device.Random(1, kQSize, 1);
    activated_ = device.Random(1, kIntermediate, 1);
    logits_ = device.Random(1, kVocabulary, 1, kF32);
    norm_ = static_cast<const float*>(device.Random(1, kHidden, 1, kF32).data);
    cos_sin_ = static_cast<const float*>(device.Random(kContext, kHeadDim, 1, kF32).data);
    position_ = device.Array<int32_t>({kContext - 1});
    slot_ = device.Array<int64_t>({kContext - 1});
    starts_ = device.Array<int32_t>({0, 1});
    length_ = device.Array<int32_t>({kContext});
    std::vector<int32_t> table(kBlocks);
    std::iota(table.begin(), table.end(), 0);
    table_ = device.Array(table);
  }

  const std::vector<Layer>& layers() const { return layers_; }
  const HeddleCudaMatrix& head() const { return head_; }

  void Enqueue(const Parts& parts) const {
    for (const Layer& layer : layers_) EnqueueLayer(layer, parts);
    Multiply(hidden_, head_, logits_);
  }
  int64_t bytes() const {
    int64_t bytes = BytesOf(head_);
    for (const Layer& layer : layers_) {
      for (const HeddleCudaMatrix* weight : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
        bytes += BytesOf(*weight);
      }
    }
    return bytes;
  }

  void EnqueueLayer(const Layer& layer, const Parts& parts) const {
    if (parts.norms) AddNorm();
    Qkv(layer);
    if (parts.attention) Attend(layer);
    Out(layer);
    if (parts.norms) AddNorm();
    Gated(layer);
    Down(layer);
  }
  void Qkv(const Layer& layer) const { Multiply(hidden_, layer.qkv, qkv_); }
  void Out(const Layer& layer) const { Multiply(attended_, layer.o, hidden_); }
  void Gated(const Layer& layer) const {
    const HeddleCudaGatedMatmul op = {hidden_, DenseWeight(layer.gate_up), nullptr, kHeddleCudaSilu, activated_};
    Check(Api().gated_matmul(device_.stream(), &op));
  }
  void Down(const Layer& layer) const { Multiply(activated_, layer.down, hidden_); }
  void Head() const { Multiply(hidden_, head_, logits_); }

 private:
  void Multiply(const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight, const HeddleCudaMatrix& y) const {
    const HeddleCudaMatmul op = {x, DenseWeight(weight), nullptr, y};
    Check(Api().matmul(device_.stream(), &op));
  }
  void AddNorm() const {
    const HeddleCudaAddRmsNorm op = {hidden_, residual_, norm_, 1e-5f, hidden_};
    Check(Api().add_rms_norm(device_.stream(), &op));
  }
  void Attend(const Layer& layer) const {
    const auto columns = [this](int64_t begin, int64_t size) {
      return HeddleCudaMatrix{static_cast<char*>(qkv_.data) + begin * 2, kBf16, 1, size, kQkvSize};
    };
    const HeddleCudaKVCache cache = {layer.keys.data, layer.values.data, kBf16,   kBlocks,
                                     kKVHeads,        kBlockSize,        kHeadDim};
    const HeddleCudaRotateAndStore rotate = {.positions = position_,
                                             .cos_sin = cos_sin_,
                                             .max_positions = kContext,
                                             .rotary_dim = kHeadDim,
                                             .q = columns(0, kQSize),
                                             .k = columns(kQSize, kKVSize),
                                             .v = columns(kQSize + kKVSize, kKVSize),
                                             .slot_mapping = slot_,
                                             .cache = cache};
    Check(Api().rotate_and_store(device_.stream(), &rotate));
    const HeddleCudaPagedAttention attention = {.q = columns(0, kQSize),
                                                .cache = cache,
                                                .query_start_loc = starts_,
                                                .seq_lens = length_,
                                                .block_table = table_,
                                                .block_table_stride = kBlocks,
                                                .num_seqs = 1,
                                                .max_query_len = 1,
                                                .max_seq_len = kBlocks * kBlockSize,
                                                .num_heads = kHeads,
                                                .scale = 0.0883883f,
                                                .sliding_window = 0,
                                                .soft_cap = 0,
                                                .out = attended_};
    Check(Api().paged_attention(device_.stream(), &attention));
  }

  Device& device_;
  std::vector<Layer> layers_{kLayers};
  HeddleCudaMatrix head_, hidden_, residual_, qkv_, attended_, activated_, logits_;
  const float* norm_;
  const float* cos_sin_;
  const int32_t* position_;
  const int64_t* slot_;
  const int32_t* starts_;
  const int32_t* length_;
  const int32_t* table_;
};

void Run() {
  Device device;
  const double ceiling = ReadCeiling(device);
  const Step step(device);
  const auto print = [&](const char* op, const char* size, const Times& times, int64_t bytes) {
    Print({op, size, times, static_cast<double>(bytes), ceiling});
  };

  const Times head = device.Measure([&] { step.Head(); });
  const auto print_step = [&](const char* what, const Parts& parts) {
    const Times times = device.Measure([&] { step.Enqueue(parts); });
    print("decoding step of one sequence", what, times, step.bytes());
    const Times layers = {times.median - head.median, times.least - head.median, times.most - head.median};
    print("a layer of it", what, layers / kLayers, (step.bytes() - BytesOf(step.head())) / kLayers);
  };
  print_step("whole", {.norms = true, .attention = true});
  print_step("without attention", {.norms = true, .attention = false});
  print_step("without norms", {.norms = false, .attention = true});
  print_step("without either", {.norms = false, .attention = false});

  using Product = void (Step::*)(const Step::Layer&) const;
  const auto print_product = [&](const char* what, Product product, HeddleCudaMatrix Step::Layer::*weight) {
    const Times times = device.Measure([&] {
      for (const Step::Layer& layer : step.layers()) (step.*product)(layer);
    });
    print("its products", what, times / kLayers, BytesOf(step.layers()[0].*weight));
  };
  print_product("qkv", &Step::Qkv, &Step::Layer::qkv);
  print_product("o", &Step::Out, &Step::Layer::o);
  print_product("gate and up", &Step::Gated, &Step::Layer::gate_up);
  print_product("down", &Step::Down, &Step::Layer::down);
  print("its products", "head", head, BytesOf(step.head()));
  ReadCeiling(device);
}

}  // namespace
}  // namespace heddle::bench

int main() {
  heddle::bench::Run();
  return 0;
}
