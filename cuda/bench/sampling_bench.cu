// `sample` in a CUDA graph, for a vocabulary of 128,256 and normally distributed logits, whose draws are flat
// (deviation 1) or peaked (4), as if every logit were read once and nothing else, against a kernel that only reads.
// Logits of few rows lie in L2, as they do behind the product that made them. One line of JSON a figure.
#include <array>

#include "bench/ceilings.cuh"

namespace heddle::bench {
namespace {

constexpr int64_t kVocabSize = 128256;
constexpr int64_t kMaxRows = 256;
constexpr int kHistory = 2048;
constexpr int kMaxLogprobs = 20;
constexpr int kCallsPerGraph = 20;

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

HeddleCudaSampleRow RowOf(Case value, uint64_t row) {
  HeddleCudaSampleRow out{};
  out.seed = row;
  out.history_begin = static_cast<int64_t>(row) * (kHistory + 1);
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

// What sampling works on.
struct Memory {
  explicit Memory(Device& device)
      : logits(device.Random(kMaxRows, kVocabSize, 1, kF32)),
        rows(static_cast<HeddleCudaSampleRow*>(device.Allocate(kMaxRows * int64_t{sizeof(*rows)}))),
        token_ids(static_cast<int32_t*>(device.Allocate(kMaxRows * 4))),
        sampled(static_cast<HeddleCudaSampledToken*>(device.Allocate(kMaxRows * int64_t{sizeof(*sampled)}))),
        best_ids(static_cast<int32_t*>(device.Allocate(kMaxRows * kMaxLogprobs * 4))),
        best_logprobs(static_cast<float*>(device.Allocate(kMaxRows * kMaxLogprobs * 4))) {
    std::vector<int32_t> tokens(kMaxRows * (kHistory + 1));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7919 % kVocabSize);
    history = device.Array(tokens);
  }

  HeddleCudaMatrix logits;
  HeddleCudaSampleRow* rows;
  int32_t* token_ids;
  HeddleCudaSampledToken* sampled;
  int32_t* best_ids;
  float* best_logprobs;
  int32_t* history;
};

Times MeasureCase(const Device& device, const Memory& memory, Case value, int64_t num_rows) {
  std::array<HeddleCudaSampleRow, kMaxRows> rows;
  for (size_t row = 0; row < rows.size(); ++row) rows[row] = RowOf(value, row);
  Check(Api().copy(device.stream(), memory.rows, rows.data(), sizeof(rows)));
  Check(Api().stream_synchronize(device.stream()));
  HeddleCudaSample op = {};
  op.logits = memory.logits;
  op.logits.num_rows = num_rows;
  op.rows = memory.rows;
  op.process_logits = value == Case::kPenalties || value == Case::kAllAtOnce ? 1 : 0;
  op.history = memory.history;
  op.token_ids = memory.token_ids;
  op.sampled = memory.sampled;
  op.max_logprobs = value == Case::kLogprobs ? kMaxLogprobs : -1;
  op.best_ids = memory.best_ids;
  op.best_logprobs = memory.best_logprobs;
  return device.Measure([&] { Check(Api().sample(device.stream(), &op)); }, kCallsPerGraph);
}

void Run() {
  Device device;
  const double ceiling = ReadCeiling(device);
  const Memory memory(device);
  for (const bool flat : {true, false}) {
    Check(Api().fill_random(device.stream(), memory.logits, 1, flat ? 1 : 4));
    for (const NamedCase& each : kCases) {
      const std::string op = std::string("sampling, ") + each.name + (flat ? ", flat" : ", peaked") + ", by rows";
      for (const int64_t rows : kRowCounts) {
        Print({op, std::to_string(rows), MeasureCase(device, memory, each.value, rows),
               static_cast<double>(rows * kVocabSize * 4), ceiling});
      }
    }
  }
}

}  // namespace
}  // namespace heddle::bench

int main() {
  heddle::bench::Run();
  return 0;
}
