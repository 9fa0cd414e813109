// Time and bandwidth of the ops over rows, in CUDA graphs of many launches each, as decoding runs them: hidden size
// 4096, 32 query and 8 key heads of 128, bfloat16. Bytes are those that an op must read and write at least once.
//
//   rows_bench [device]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "heddle_cuda.h"

namespace {

constexpr int64_t kHidden = 4096;
constexpr int64_t kKeyValueSize = 1024;
constexpr int kHeadDim = 128;
constexpr int64_t kMaxRows = 4096;
constexpr int64_t kBlockSize = 16;
constexpr int64_t kVocabSize = 128'000;
constexpr int64_t kTimeoutUs = 60'000'000;
constexpr HeddleCudaDType kT = kHeddleCudaBFloat16;

const HeddleCudaApi& api = *HeddleCudaGetApi(HEDDLE_CUDA_API_VERSION);

void Must(HeddleCudaStatus status) {
  if (status == kHeddleCudaOk) return;
  std::fprintf(stderr, "%s\n", api.last_error());
  std::exit(1);
}

// Memory of the stream for as long as the program runs.
struct Memory {
  HeddleCudaStream* stream;

  void* Bytes(int64_t bytes) const {
    void* memory = nullptr;
    Must(api.allocate(stream, bytes, &memory));
    Must(api.fill(stream, memory, 0, bytes));
    return memory;
  }
  HeddleCudaMatrix Random(HeddleCudaDType dtype, int64_t rows, int64_t size) const {
    const HeddleCudaMatrix matrix = {Bytes(rows * size * (dtype == kHeddleCudaFloat32 ? 4 : 2)), dtype, rows, size,
                                     size};
    Must(api.fill_random(stream, matrix, 1, 1));
    return matrix;
  }
  template <typename T>
  T* Numbers(int64_t count, int64_t range) const {
    std::vector<T> numbers;
    for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<T>(i * 7919 % range));
    void* memory = Bytes(count * int64_t{sizeof(T)});
    Must(api.copy(stream, memory, numbers.data(), count * int64_t{sizeof(T)}));
    Must(api.stream_synchronize(stream));
    return static_cast<T*>(memory);
  }
};

// Microseconds of one launch: the median over launches of a graph of many.
double Measure(HeddleCudaStream* stream, const std::function<void()>& launch, int launches) {
  constexpr int kRounds = 30;
  HeddleCudaGraph* graph = nullptr;
  HeddleCudaEvent* begin = nullptr;
  HeddleCudaEvent* end = nullptr;
  Must(api.event_create(stream, &begin));
  Must(api.event_create(stream, &end));
  launch();  // whatever happens only once
  Must(api.capture_begin(stream));
  for (int i = 0; i < launches; ++i) launch();
  Must(api.capture_end(stream, &graph));
  std::vector<double> seconds;
  for (int round = 0; round < kRounds; ++round) {
    Must(api.event_record(stream, begin));
    Must(api.graph_launch(stream, graph));
    Must(api.event_record(stream, end));
    Must(api.stream_synchronize(stream));
    seconds.push_back(0);
    Must(api.event_elapsed(begin, end, &seconds.back()));
  }
  Must(api.graph_destroy(graph));
  Must(api.event_destroy(begin));
  Must(api.event_destroy(end));
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
  return seconds[kRounds / 2] / launches * 1e6;
}

HeddleCudaMatrix FirstRows(HeddleCudaMatrix matrix, int64_t rows) {
  matrix.num_rows = rows;
  return matrix;
}

}  // namespace

int main(int argc, char** argv) {
  HeddleCudaStream* stream = nullptr;
  Must(api.stream_create(argc > 1 ? std::atoi(argv[1]) : 0, 0, kTimeoutUs, &stream));
  const Memory memory{stream};
  const HeddleCudaMatrix x = memory.Random(kT, kMaxRows, kHidden);
  const HeddleCudaMatrix y = memory.Random(kT, kMaxRows, kHidden);
  const HeddleCudaMatrix residual = memory.Random(kHeddleCudaFloat32, kMaxRows, kHidden);
  const HeddleCudaMatrix k = memory.Random(kT, kMaxRows, kKeyValueSize);
  const HeddleCudaMatrix v = memory.Random(kT, kMaxRows, kKeyValueSize);
  const HeddleCudaMatrix table = memory.Random(kT, kVocabSize, kHidden);
  const auto* weight = static_cast<const float*>(memory.Random(kHeddleCudaFloat32, 1, kHidden).data);
  const auto* cos_sin = static_cast<const float*>(memory.Random(kHeddleCudaFloat32, kMaxRows, kHeadDim).data);
  const auto* ids = memory.Numbers<int32_t>(kMaxRows, kVocabSize);
  const auto* rows_of = memory.Numbers<int32_t>(kMaxRows, kMaxRows);
  const auto* slots = memory.Numbers<int64_t>(kMaxRows, kMaxRows);
  const HeddleCudaKVCache cache = {memory.Bytes(kMaxRows * kKeyValueSize * 2),
                                   memory.Bytes(kMaxRows * kKeyValueSize * 2),
                                   kT,
                                   kMaxRows / kBlockSize,
                                   kKeyValueSize / kHeadDim,
                                   kBlockSize,
                                   kHeadDim};

  std::printf("%-18s %6s %10s %10s\n", "op", "rows", "us", "GB/s");
  for (int64_t rows : {int64_t{1}, int64_t{64}, kMaxRows}) {
    const int launches = rows == kMaxRows ? 20 : 500;
    const auto report = [&](const char* op, double bytes_per_row, const std::function<HeddleCudaStatus()>& launch) {
      const double us = Measure(
          stream, [&] { Must(launch()); }, launches);
      std::printf("%-18s %6ld %10.2f %10.0f\n", op, static_cast<long>(rows), us,
                  bytes_per_row * static_cast<double>(rows) / us * 1e-3);
    };
    const HeddleCudaEmbedding embedding = {ids, table, 0, 1, FirstRows(residual, rows)};
    report("embedding", kHidden * 6, [&] { return api.embedding(stream, &embedding); });
    const HeddleCudaRmsNorm norm = {FirstRows(residual, rows), 1, weight, 1e-5f, FirstRows(y, rows)};
    report("rms_norm", kHidden * 6, [&] { return api.rms_norm(stream, &norm); });
    const HeddleCudaRmsNorm head_norm = {FirstRows(x, rows), kHidden / kHeadDim, weight, 1e-5f, FirstRows(x, rows)};
    report("rms_norm of heads", kHidden * 4, [&] { return api.rms_norm(stream, &head_norm); });
    const HeddleCudaAddRmsNorm add_norm = {FirstRows(x, rows), FirstRows(residual, rows), weight, 1e-5f,
                                           FirstRows(y, rows)};
    report("add_rms_norm", kHidden * 12, [&] { return api.add_rms_norm(stream, &add_norm); });
    const HeddleCudaAddBias bias = {weight, FirstRows(y, rows)};
    report("add_bias", kHidden * 4, [&] { return api.add_bias(stream, &bias); });
    const HeddleCudaGatherRows gather = {x, rows_of, FirstRows(y, rows)};
    report("gather_rows", kHidden * 4, [&] { return api.gather_rows(stream, &gather); });
    const HeddleCudaRotateAndStore rotate = {
        rows_of, cos_sin, kMaxRows, kHeadDim, FirstRows(x, rows), FirstRows(k, rows), FirstRows(v, rows), slots, cache};
    report("rotate_and_store", (2 * kHidden + 5 * kKeyValueSize) * 2,
           [&] { return api.rotate_and_store(stream, &rotate); });
  }
  const HeddleCudaMatrix logits = {residual.data, kHeddleCudaFloat32, 64, kVocabSize, kVocabSize};
  const HeddleCudaSoftCap cap = {30, logits};
  const double cap_us = Measure(
      stream, [&] { Must(api.soft_cap(stream, &cap)); }, 20);
  std::printf("%-18s %6d %10.2f %10.0f\n", "soft_cap", 64, cap_us, 64.0 * kVocabSize * 8 / cap_us * 1e-3);
  const double fill_us = Measure(
      stream, [&] { Must(api.fill_random(stream, table, 1, 1)); }, 3);
  std::printf("%-18s %6ld %10.2f %10.0f\n", "fill_random", static_cast<long>(kVocabSize), fill_us,
              static_cast<double>(kVocabSize) * kHidden * 2 / fill_us * 1e-3);
  return 0;
}
