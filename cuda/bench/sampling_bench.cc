// Microseconds of `sample` in a CUDA graph, for a vocabulary of 128,256 and normally distributed logits, whose draws
// are flat (deviation 1) or peaked (4). Beside them the bandwidth if every logit were read once and nothing else.
//
//   sampling_bench [device]
//
// Logits of few rows lie in L2, as they do behind the product that made them. Every time is the median of kRounds
// launches of a graph of kCallsPerGraph calls.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "heddle_cuda.h"

namespace {

constexpr int64_t kVocabSize = 128256;
constexpr int64_t kMaxRows = 256;
constexpr int kHistory = 2048;
constexpr int kMaxLogprobs = 20;
constexpr int kCallsPerGraph = 20;
constexpr int kRounds = 25;
constexpr int64_t kWorkspaceBytes = int64_t{256} << 20;
constexpr int64_t kTimeoutUs = 60'000'000;

const HeddleCudaApi& api = *HeddleCudaGetApi(HEDDLE_CUDA_API_VERSION);

void Must(HeddleCudaStatus status) {
  if (status == kHeddleCudaOk) return;
  std::fprintf(stderr, "%s\n", api.last_error());
  std::exit(1);
}

enum class Case { kGreedy, kTemperature, kTopKTopP, kTopP, kMinP, kPenalties, kAllAtOnce, kLogprobs };
struct NamedCase {
  Case value;
  const char* name;
};
constexpr NamedCase kCases[] = {{Case::kGreedy, "greedy"},
                                {Case::kTemperature, "temperature 0.8"},
                                {Case::kTopKTopP, "top-k 50, top-p 0.9"},
                                {Case::kTopP, "top-p 0.9"},
                                {Case::kMinP, "min-p 0.05"},
                                {Case::kPenalties, "greedy, penalties"},
                                {Case::kAllAtOnce, "penalties, top-k, top-p"},
                                {Case::kLogprobs, "greedy, 20 logprobs"}};
constexpr int64_t kRowCounts[] = {1, 8, 64, 256};

HeddleCudaSampleRow RowOf(Case value, int64_t row) {
  HeddleCudaSampleRow out{};
  out.seed = static_cast<uint64_t>(row);
  out.history_begin = row * (kHistory + 1);
  out.position = kHistory;
  out.prompt_len = kHistory / 2;
  out.given_token = -1;
  out.num_logprobs = value == Case::kLogprobs ? kMaxLogprobs : -1;
  out.temperature = value == Case::kGreedy || value == Case::kPenalties || value == Case::kLogprobs ? 0.0f : 0.8f;
  const bool top_k = value == Case::kTopKTopP || value == Case::kAllAtOnce;
  out.top_k = top_k ? 50 : 0;
  out.top_p = top_k || value == Case::kTopP ? 0.9f : 1.0f;
  out.min_p = value == Case::kMinP ? 0.05f : 0.0f;
  const bool penalizes = value == Case::kPenalties || value == Case::kAllAtOnce;
  out.repetition_penalty = penalizes ? 1.1f : 1.0f;
  out.presence_penalty = penalizes ? 0.5f : 0.0f;
  return out;
}

class Bench {
 public:
  explicit Bench(int device) {
    Must(api.stream_create(device, kWorkspaceBytes, kTimeoutUs, &stream_));
    logits_ = {Allocate(kMaxRows * kVocabSize * 4), kHeddleCudaFloat32, kMaxRows, kVocabSize, kVocabSize};
    rows_ = Allocate(kMaxRows * static_cast<int64_t>(sizeof(HeddleCudaSampleRow)));
    token_ids_ = static_cast<int32_t*>(Allocate(kMaxRows * 4));
    sampled_ =
        static_cast<HeddleCudaSampledToken*>(Allocate(kMaxRows * static_cast<int64_t>(sizeof(HeddleCudaSampledToken))));
    best_ids_ = static_cast<int32_t*>(Allocate(kMaxRows * kMaxLogprobs * 4));
    best_logprobs_ = static_cast<float*>(Allocate(kMaxRows * kMaxLogprobs * 4));
    std::vector<int32_t> history(kMaxRows * (kHistory + 1));
    for (size_t i = 0; i < history.size(); ++i) history[i] = static_cast<int32_t>(i * 7919 % kVocabSize);
    history_ = static_cast<int32_t*>(Upload(Allocate(static_cast<int64_t>(history.size()) * 4), history));
    Must(api.event_create(stream_, &begin_));
    Must(api.event_create(stream_, &end_));
  }

  void FillLogits(float deviation) { Must(api.fill_random(stream_, logits_, 1, deviation)); }

  // Microseconds of one call.
  double Measure(Case value, int64_t num_rows) {
    std::vector<HeddleCudaSampleRow> rows;
    for (int64_t row = 0; row < num_rows; ++row) rows.push_back(RowOf(value, row));
    Upload(rows_, rows);
    HeddleCudaSample op{};
    op.logits = logits_;
    op.logits.num_rows = num_rows;
    op.rows = static_cast<const HeddleCudaSampleRow*>(rows_);
    op.process_logits = value == Case::kPenalties || value == Case::kAllAtOnce ? 1 : 0;
    op.history = history_;
    op.token_ids = token_ids_;
    op.sampled = sampled_;
    op.max_logprobs = value == Case::kLogprobs ? kMaxLogprobs : -1;
    op.best_ids = best_ids_;
    op.best_logprobs = best_logprobs_;
    HeddleCudaGraph* graph = nullptr;
    Must(api.sample(stream_, &op));
    Must(api.capture_begin(stream_));
    for (int i = 0; i < kCallsPerGraph; ++i) Must(api.sample(stream_, &op));
    Must(api.capture_end(stream_, &graph));
    std::vector<double> seconds(kRounds);
    for (double& time : seconds) {
      Must(api.event_record(stream_, begin_));
      Must(api.graph_launch(stream_, graph));
      Must(api.event_record(stream_, end_));
      Must(api.stream_synchronize(stream_));
      Must(api.event_elapsed(begin_, end_, &time));
    }
    Must(api.graph_destroy(graph));
    std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
    return seconds[kRounds / 2] / kCallsPerGraph * 1e6;
  }

 private:
  void* Allocate(int64_t bytes) {
    void* memory = nullptr;
    Must(api.allocate(stream_, bytes, &memory));
    return memory;
  }

  template <typename T>
  void* Upload(void* to, const std::vector<T>& values) {
    Must(api.copy(stream_, to, values.data(), static_cast<int64_t>(values.size() * sizeof(T))));
    Must(api.stream_synchronize(stream_));
    return to;
  }

  HeddleCudaStream* stream_ = nullptr;
  HeddleCudaEvent* begin_ = nullptr;
  HeddleCudaEvent* end_ = nullptr;
  HeddleCudaMatrix logits_{};
  void* rows_ = nullptr;
  int32_t* history_ = nullptr;
  int32_t* token_ids_ = nullptr;
  HeddleCudaSampledToken* sampled_ = nullptr;
  int32_t* best_ids_ = nullptr;
  float* best_logprobs_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  Bench bench(argc > 1 ? std::atoi(argv[1]) : 0);
  std::printf("%-24s %9s %6s %10s %10s\n", "rows are", "deviation", "rows", "us", "GB/s");
  for (const float deviation : {1.0f, 4.0f}) {
    bench.FillLogits(deviation);
    for (const NamedCase& row : kCases) {
      for (const int64_t rows : kRowCounts) {
        const double us = bench.Measure(row.value, rows);
        std::printf("%-24s %9g %6ld %10.2f %10.0f\n", row.name, static_cast<double>(deviation), static_cast<long>(rows),
                    us, static_cast<double>(rows * kVocabSize * 4) / us * 1e-3);
      }
    }
  }
  return 0;
}
