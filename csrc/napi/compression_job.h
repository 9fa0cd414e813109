// CompressCheckpoint on a thread of its own, behind a promise that can be cancelled: a pool thread would be taken from
// the whole process for as long as it takes, and an environment that ends would wait for it before its hooks run.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <thread>

#include "compress/compression.h"
#include "engine/engine_failure.h"
#include "napi/napi_setup.h"

namespace heddle {

// Deletes itself once the promise is settled. An environment that ends before cancels it, and waits until it has
// cleaned up. JavaScript thread, but for Run.
class CompressionJob {
 public:
  // NativeCompression of types/addon.d.ts. `on_progress` may be empty.
  static Napi::Object Start(Napi::Env env, CompressionOptions options, Napi::Function on_progress);

 private:
  CompressionJob(Napi::Env env, CompressionOptions options, Napi::Function on_progress);
  ~CompressionJob();
  CompressionJob(const CompressionJob&) = delete;
  CompressionJob& operator=(const CompressionJob&) = delete;

  static void OnEnvironmentExit(void* job);
  void Run();
  void Settle(Napi::Env env);

  napi_env env_;
  Napi::Promise::Deferred deferred_;
  Napi::ThreadSafeFunction channel_;
  CompressionOptions options_;
  std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  CompressionReport report_;
  std::optional<EngineFailure> failure_;
  std::thread thread_;
};

}  // namespace heddle
