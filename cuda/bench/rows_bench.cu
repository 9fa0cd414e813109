// The ops over rows, in CUDA graphs of many launches each, as decoding runs them: hidden size 4096, 32 query and 8 key
// heads of 128, bfloat16. Bytes are those that an op must read and write at least once, against a kernel that only
// reads, measured in the same run; of few rows they lie in L2. One line of JSON a figure.
#include "bench/ceilings.cuh"

namespace heddle::bench {
namespace {

constexpr int64_t kHidden = 4096;
constexpr int64_t kKeyValueSize = 1024;
constexpr int kHeadDim = 128;
constexpr int64_t kMaxRows = 16384;  // more than L2 holds
constexpr int64_t kBlockSize = 16;
constexpr int64_t kVocabSize = 128'000;

// Scattered in [0, range).
template <typename T>
T* Numbers(Device& device, int64_t count, int64_t range) {
  std::vector<T> numbers;
  for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<T>(i * 7919 % range));
  return device.Array(numbers);
}

HeddleCudaMatrix FirstRows(HeddleCudaMatrix matrix, int64_t rows) {
  matrix.num_rows = rows;
  return matrix;
}

void Run() {
  Device device;
  HeddleCudaStream* const stream = device.stream();
  const double ceiling = ReadCeiling(device);
  const HeddleCudaMatrix x = device.Random(kMaxRows, kHidden);
  const HeddleCudaMatrix y = device.Random(kMaxRows, kHidden);
  const HeddleCudaMatrix residual = device.Random(kMaxRows, kHidden, 1, kF32);
  const HeddleCudaMatrix k = device.Random(kMaxRows, kKeyValueSize);
  const HeddleCudaMatrix v = device.Random(kMaxRows, kKeyValueSize);
  const HeddleCudaMatrix table = device.Random(kVocabSize, kHidden);
  const auto* weight = static_cast<const float*>(device.Random(1, kHidden, 1, kF32).data);
  const auto* cos_sin = static_cast<const float*>(device.Random(kMaxRows, kHeadDim, 1, kF32).data);
  const auto* ids = Numbers<int32_t>(device, kMaxRows, kVocabSize);
  auto* const pending = device.Array(std::vector<int32_t>(kMaxRows, -1));
  const auto* sampled = device.Array(std::vector<int32_t>{-1});  // so that what is pending stays so
  const auto* rows_of = Numbers<int32_t>(device, kMaxRows, kMaxRows);
  const auto* slots = Numbers<int64_t>(device, kMaxRows, kMaxRows);
  const HeddleCudaKVCache cache = {device.Allocate(kMaxRows * kKeyValueSize * 2),
                                   device.Allocate(kMaxRows * kKeyValueSize * 2),
                                   kBf16,
                                   kMaxRows / kBlockSize,
                                   kKeyValueSize / kHeadDim,
                                   kBlockSize,
                                   kHeadDim};

  const auto report = [&](const char* op, int64_t rows, int64_t bytes_per_row,
                          const std::function<HeddleCudaStatus()>& launch) {
    const int launches = rows >= kMaxRows ? 20 : 500;
    const Times times = device.Measure([&] { Check(launch()); }, launches);
    Print({std::string(op) + ", by rows", std::to_string(rows), times, static_cast<double>(bytes_per_row * rows),
           ceiling});
  };
  for (const int64_t rows : {int64_t{1}, int64_t{64}, kMaxRows}) {
    const HeddleCudaEmbedding embedding = {ids, table, nullptr, 0, 1, FirstRows(residual, rows)};
    report("embedding", rows, kHidden * 6, [&] { return Api().embedding(stream, &embedding); });
    report("ids of sampled tokens", rows, 8, [&] { return Api().fill_sampled(stream, pending, rows, sampled); });
    const HeddleCudaRmsNorm norm = {FirstRows(residual, rows), 1, weight, 1e-5f, FirstRows(y, rows)};
    report("RMSNorm", rows, kHidden * 6, [&] { return Api().rms_norm(stream, &norm); });
    const HeddleCudaRmsNorm head_norm = {FirstRows(x, rows), kHidden / kHeadDim, weight, 1e-5f, FirstRows(x, rows)};
    report("RMSNorm of heads", rows, kHidden * 4, [&] { return Api().rms_norm(stream, &head_norm); });
    const HeddleCudaAddRmsNorm add_norm = {FirstRows(x, rows), FirstRows(residual, rows), weight, 1e-5f,
                                           FirstRows(y, rows)};
    report("RMSNorm of the sum with the residual", rows, kHidden * 12,
           [&] { return Api().add_rms_norm(stream, &add_norm); });
    const HeddleCudaAddBias bias = {weight, FirstRows(y, rows)};
    report("bias", rows, kHidden * 4, [&] { return Api().add_bias(stream, &bias); });
    const HeddleCudaGatherRows gather = {x, rows_of, FirstRows(y, rows)};
    report("gathering of rows", rows, kHidden * 4, [&] { return Api().gather_rows(stream, &gather); });
    const HeddleCudaRotateAndStore rotate = {
        rows_of, cos_sin, kMaxRows, kHeadDim, FirstRows(x, rows), FirstRows(k, rows), FirstRows(v, rows), slots, cache};
    report("rotation of q and k, with k and v stored", rows, (2 * kHidden + 5 * kKeyValueSize) * 2,
           [&] { return Api().rotate_and_store(stream, &rotate); });
  }
  const HeddleCudaSoftCap cap = {30, device.Random(64, kVocabSize, 1, kF32)};
  report("soft cap of logits", 64, kVocabSize * 8, [&] { return Api().soft_cap(stream, &cap); });
  report("random weights", kVocabSize, kHidden * 2, [&] { return Api().fill_random(stream, table, 1, 1); });
}

}  // namespace
}  // namespace heddle::bench

int main() {
  heddle::bench::Run();
  return 0;
}
