// Work off the JavaScript thread behind a promise.
#pragma once

#include <functional>
#include <memory>

#include "napi/napi_setup.h"

namespace heddle {

// Runs `work` on a pool thread, then `convert` on the JavaScript thread with its result, and settles the promise.
// Deletes itself.
template <typename Result>
class PromiseWorker : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result()>;
  using Convert = std::function<Napi::Value(Napi::Env, const Result&)>;

  static Napi::Promise Start(Napi::Env env, Work work, Convert convert) {
    auto* worker = new PromiseWorker(env, std::move(work), std::move(convert));
    const Napi::Promise promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }

 protected:
  void Execute() override {
    try {
      result_ = std::make_unique<Result>(work_());
    } catch (const Error& error) {
      code_ = error.code();
      SetError(error.what());
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }
  void OnOK() override { deferred_.Resolve(convert_(Env(), *result_)); }
  void OnError(const Napi::Error& error) override {
    deferred_.Reject(MakeJsError(Env(), code_, error.Message()).Value());
  }

 private:
  PromiseWorker(Napi::Env env, Work work, Convert convert)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        work_(std::move(work)),
        convert_(std::move(convert)) {}

  Napi::Promise::Deferred deferred_;
  Work work_;
  Convert convert_;
  std::unique_ptr<Result> result_;
  ErrorCode code_ = ErrorCode::kInternal;
};

}  // namespace heddle
