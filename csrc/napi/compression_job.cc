#include "napi/compression_job.h"

#include "napi/convert.h"

namespace heddle {

Napi::Object CompressionJob::Start(Napi::Env env, CompressionOptions options, Napi::Function on_progress) {
  auto* job = new CompressionJob(env, std::move(options), on_progress);
  Napi::Object object = Napi::Object::New(env);
  object.Set("done", job->deferred_.Promise());
  object.Set("cancel", Napi::Function::New(
                           env, [flag = job->cancelled_](const Napi::CallbackInfo&) { flag->store(true); }, "cancel"));
  return object;
}

CompressionJob::CompressionJob(Napi::Env env, CompressionOptions options, Napi::Function on_progress)
    : env_(env), deferred_(Napi::Promise::Deferred::New(env)), options_(std::move(options)) {
  // A function is wanted in any case.
  const Napi::Function function =
      on_progress.IsEmpty() ? Napi::Function::New(env, [](const Napi::CallbackInfo&) {}) : on_progress;
  channel_ = Napi::ThreadSafeFunction::New(env, function, "heddle", /*maxQueueSize=*/0, /*initialThreadCount=*/1);
  // After the channel, since hooks run in reverse.
  napi_add_env_cleanup_hook(env_, OnEnvironmentExit, this);
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (...) {
    napi_remove_env_cleanup_hook(env_, OnEnvironmentExit, this);
    channel_.Release();
    throw;
  }
}

CompressionJob::~CompressionJob() {
  thread_.join();
  channel_.Release();
}

void CompressionJob::OnEnvironmentExit(void* job) {
  auto* self = static_cast<CompressionJob*>(job);
  self->cancelled_->store(true);
  delete self;
}

void CompressionJob::Run() {
  try {
    const auto on_progress = [this](double fraction) {
      channel_.NonBlockingCall([fraction](Napi::Env env, const Napi::Function& function) {
        function.Call({Napi::Number::New(env, fraction)});
      });
    };
    report_ = CompressCheckpoint(options_, on_progress, *cancelled_);
  } catch (...) {
    failure_ = CurrentFailure();
  }
  channel_.NonBlockingCall([this](Napi::Env env, const Napi::Function&) { Settle(env); });
}

void CompressionJob::Settle(Napi::Env env) {
  napi_remove_env_cleanup_hook(env_, OnEnvironmentExit, this);
  if (failure_) {
    deferred_.Reject(MakeJsError(env, failure_->code, failure_->message).Value());
  } else {
    deferred_.Resolve(FromReport(env, report_));
  }
  delete this;
}

}  // namespace heddle
