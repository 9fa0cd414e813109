// CompressCheckpoint off the JavaScript thread, behind a promise that can be cancelled.
#pragma once

#include <atomic>
#include <memory>

#include "compress/compression.h"
#include "napi/napi_setup.h"

namespace heddle {

// Deletes itself. An environment that ends cancels it, and waits until it has cleaned up.
class CompressionWorker : public Napi::AsyncProgressWorker<double> {
 public:
  // NativeCompression of types/addon.d.ts. `on_progress` may be empty.
  static Napi::Object Start(Napi::Env env, CompressionOptions options, Napi::Function on_progress);

 protected:
  void Execute(const ExecutionProgress& progress) override;
  void OnProgress(const double* fractions, size_t count) override;
  void OnOK() override;
  void OnError(const Napi::Error& error) override;

 private:
  using Flag = std::shared_ptr<std::atomic<bool>>;

  CompressionWorker(Napi::Env env, CompressionOptions options, Napi::Function on_progress);
  ~CompressionWorker() override;
  static void OnEnvironmentExit(void* worker);

  Napi::Promise::Deferred deferred_;
  Napi::FunctionReference on_progress_;
  CompressionOptions options_;
  Flag cancelled_ = std::make_shared<std::atomic<bool>>(false);
  CompressionReport report_;
  ErrorCode code_ = ErrorCode::kInternal;
};

}  // namespace heddle
