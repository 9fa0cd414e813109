// The engine without JavaScript: the requests of test/bench/gpu.mjs, consumed by a thread of this program. Random
// weights.
//
//   engine MODEL cpu|cuda KV_CACHE_BYTES MAX_NUM_SEQS BATCH PROMPT OUTPUT [rounds=3]
//
// One line of JSON a round, as gpu.mjs has its samples: tokens a second of the prompts until every sequence has its
// first token, of decoding from then on, and of the output over the whole time.
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>

#include "ceilings.h"
#include "engine/threaded_engine.h"

namespace heddle::bench {
namespace {

// Hands what the engine's thread says to the thread that waits for it.
class Inbox : public EngineListener {
 public:
  void OnProgress(double) override {}

  void OnReady(const EngineInfo& info) override {
    Deliver([&] { info_ = info; });
  }

  void OnLoadFailed(const EngineFailure& failure) override {
    Deliver([&] { failure_ = failure; });
  }

  void OnOutput(EngineOutput output) override {
    Deliver([&] {
      if (output.failure) failure_ = output.failure;
      for (SequenceDelta& delta : output.deltas) deltas_.push_back(std::move(delta));
    });
  }

  EngineInfo AwaitReady() {
    std::unique_lock lock(mutex_);
    Await(lock, [&] { return info_.has_value(); });
    return *info_;
  }

  std::vector<SequenceDelta> AwaitDeltas() {
    std::unique_lock lock(mutex_);
    Await(lock, [&] { return !deltas_.empty(); });
    return std::exchange(deltas_, {});
  }

 private:
  template <typename Change>
  void Deliver(const Change& change) {
    {
      const std::lock_guard lock(mutex_);
      change();
    }
    arrived_.notify_one();
  }

  template <typename Condition>
  void Await(std::unique_lock<std::mutex>& lock, const Condition& condition) {
    arrived_.wait(lock, [&] { return failure_ || condition(); });
    if (failure_) throw std::runtime_error(failure_->message);
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::optional<EngineInfo> info_;
  std::optional<EngineFailure> failure_;
  std::vector<SequenceDelta> deltas_;
};

struct Workload {
  int batch = 0;
  int prompt = 0;
  int output = 0;
};

struct Rates {
  double prefill = 0;
  double decode = 0;
  double output = 0;
};

// The prompts of gpu.mjs, which both keep clear of the special tokens at the vocabulary's end.
Request MakeRequest(const Workload& work, int64_t sequence, int64_t vocab_size) {
  Request request;
  for (int64_t i = 0; i < work.prompt; ++i) {
    request.prompt_token_ids.push_back(static_cast<int32_t>((i * 7919 + sequence * 104729) % (vocab_size - 256)));
  }
  request.sampling_params.temperature = 0;
  request.sampling_params.max_tokens = work.output;
  request.sampling_params.ignore_eos = true;
  request.sampling_params.detokenize = false;
  return request;
}

Rates Measure(ThreadedEngine& engine, Inbox& inbox, const Workload& work, int64_t vocab_size) {
  std::set<RequestId> waiting;  // for their first token
  std::vector<Request> requests;
  for (int sequence = 0; sequence < work.batch; ++sequence) {
    requests.push_back(MakeRequest(work, sequence, vocab_size));
  }
  const double start = SecondsNow();
  for (Request& request : requests) waiting.insert(engine.AddRequest(std::move(request), true));
  double all_started = 0;
  int64_t decoded = 0;
  for (int open = work.batch; open > 0;) {
    const bool decoding = waiting.empty();
    for (const SequenceDelta& delta : inbox.AwaitDeltas()) {
      if (delta.end != nullptr && delta.end->error) throw std::runtime_error(delta.end->error->message);
      if (delta.num_tokens > 0) waiting.erase(delta.request_id);
      if (decoding) decoded += delta.num_tokens;
      if (delta.finish_reason != FinishReason::kNone) --open;
      engine.Acknowledge(delta.request_id, delta.num_tokens);
    }
    if (!decoding && waiting.empty()) all_started = SecondsNow();
  }
  const double end = SecondsNow();
  return {.prefill = work.batch * work.prompt / (all_started - start),
          .decode = static_cast<double>(decoded) / (end - all_started),
          .output = work.batch * work.output / (end - start)};
}

int Main(int argc, char** argv) {
  if (argc < 8) throw std::runtime_error("MODEL cpu|cuda KV_CACHE_BYTES MAX_NUM_SEQS BATCH PROMPT OUTPUT expected");
  EngineConfig config;
  config.model = argv[1];
  config.device_auto = false;
  config.device = std::string(argv[2]) == "cuda" ? DeviceType::kCuda : DeviceType::kCpu;
  config.load_format = LoadFormat::kDummy;
  config.kv_cache_bytes = std::atoll(argv[3]);
  config.max_num_seqs = std::atoi(argv[4]);
  config.max_num_waiting = 4096;
  config.enable_prefix_caching = false;
  config.comm_timeout_ms = 60'000;
  const Workload work{std::atoi(argv[5]), std::atoi(argv[6]), std::atoi(argv[7])};
  const int rounds = argc > 8 ? std::atoi(argv[8]) : 3;

  Inbox inbox;
  ThreadedEngine engine(config, nullptr, inbox);
  const EngineInfo info = inbox.AwaitReady();
  constexpr int kWarmUps = 2;
  for (int round = -kWarmUps; round < rounds; ++round) {
    const Rates rates = Measure(engine, inbox, work, info.vocab_size);
    if (round < 0) continue;
    std::cout << R"({"prefill":)" << rates.prefill << R"(,"decode":)" << rates.decode << R"(,"output":)" << rates.output
              << "}\n";
  }
  engine.Stop();
  return 0;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
  try {
    return heddle::bench::Main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "engine: " << error.what() << "\n";
    return 1;
  }
}
