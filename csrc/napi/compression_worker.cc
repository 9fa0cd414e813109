#include "napi/compression_worker.h"

#include "napi/convert.h"

namespace heddle {

Napi::Object CompressionWorker::Start(Napi::Env env, CompressionOptions options, Napi::Function on_progress) {
  auto* worker = new CompressionWorker(env, std::move(options), on_progress);
  Napi::Object object = Napi::Object::New(env);
  object.Set("done", worker->deferred_.Promise());
  object.Set("cancel",
             Napi::Function::New(
                 env, [flag = worker->cancelled_](const Napi::CallbackInfo&) { flag->store(true); }, "cancel"));
  worker->Queue();
  return object;
}

CompressionWorker::CompressionWorker(Napi::Env env, CompressionOptions options, Napi::Function on_progress)
    : Napi::AsyncProgressWorker<double>(env),
      deferred_(Napi::Promise::Deferred::New(env)),
      options_(std::move(options)) {
  if (!on_progress.IsEmpty()) on_progress_ = Napi::Persistent(on_progress);
  napi_add_env_cleanup_hook(env, OnEnvironmentExit, this);
}

CompressionWorker::~CompressionWorker() { napi_remove_env_cleanup_hook(Env(), OnEnvironmentExit, this); }

void CompressionWorker::OnEnvironmentExit(void* worker) {
  static_cast<CompressionWorker*>(worker)->cancelled_->store(true);
}

void CompressionWorker::Execute(const ExecutionProgress& progress) {
  try {
    report_ = CompressCheckpoint(
        options_, [&](double fraction) { progress.Send(&fraction, 1); }, *cancelled_);
  } catch (const Error& error) {
    code_ = error.code();
    SetError(error.what());
  } catch (const std::exception& error) {
    SetError(error.what());
  }
}

void CompressionWorker::OnProgress(const double* fractions, size_t count) {
  if (count > 0 && !on_progress_.IsEmpty()) on_progress_.Call({Napi::Number::New(Env(), fractions[count - 1])});
}

void CompressionWorker::OnOK() { deferred_.Resolve(FromReport(Env(), report_)); }

void CompressionWorker::OnError(const Napi::Error& error) {
  deferred_.Reject(MakeJsError(Env(), code_, error.Message()).Value());
}

}  // namespace heddle
