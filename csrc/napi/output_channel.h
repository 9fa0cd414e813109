// The one way from the engine's thread to JavaScript: a thread-safe function and what waits to be delivered through it.
//
// Rules, each for a reason:
//   (1) At most one call is under way; what arrives meanwhile joins it. A busy event loop gets one late callback, not a
//       thousand.
//   (2) After Close, which runs on the JavaScript thread, nothing is delivered and the function is never touched again:
//       it may be gone with its environment.
//   (3) The function keeps the event loop alive only while loading, or while the owner says so.
#pragma once

#include <functional>
#include <mutex>
#include <optional>

#include "engine/threaded_engine.h"
#include "napi/napi_setup.h"

namespace heddle {

class OutputChannel : public EngineListener {
 public:
  // Called on the JavaScript thread, with an open handle scope.
  struct Callbacks {
    std::function<void(Napi::Env, const EngineInfo&)> on_ready;
    std::function<void(Napi::Env, const EngineFailure&)> on_load_failed;
  };

  // JavaScript thread. `on_progress` may be empty.
  OutputChannel(Napi::Env env, Napi::Function on_step, Napi::Function on_progress, Callbacks callbacks);
  ~OutputChannel() override;

  // -- Engine's threads --
  void OnProgress(double fraction) override;
  void OnReady(const EngineInfo& info) override;
  void OnLoadFailed(const EngineFailure& failure) override;
  void OnOutput(EngineOutput output) override;

  // -- JavaScript thread --
  void SetKeepAlive(Napi::Env env, bool keep_alive);
  // Idempotent. REQUIRES: the engine's thread has ended.
  void Close();
  int64_t num_callbacks() const { return num_callbacks_; }

 private:
  struct Pending {
    std::optional<double> progress;
    std::optional<EngineInfo> info;
    std::optional<EngineFailure> load_failure;
    EngineOutput output;
  };

  static void Deliver(Napi::Env env, Napi::Function on_step, OutputChannel* channel, void*);
  using Function = Napi::TypedThreadSafeFunction<OutputChannel, void, Deliver>;

  template <typename Change>
  void Post(const Change& change);
  void DeliverPending(Napi::Env env, Napi::Function on_step);
  void FailDelivery(const std::string& reason);

  Napi::FunctionReference on_progress_;
  Callbacks callbacks_;
  Function function_;
  int64_t num_callbacks_ = 0;
  bool delivery_failed_ = false;

  std::mutex mutex_;  // guards what follows
  Pending pending_;
  bool scheduled_ = false;
  bool closed_ = false;
};

}  // namespace heddle
