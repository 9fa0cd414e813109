#include "napi/engine_wrap.h"

#include "napi/convert.h"
#include "napi/promise_worker.h"
#include "napi/type_tags.h"
#include "text/text_streamer.h"

namespace heddle {
namespace {

// What Create passes to the constructor, so that JavaScript cannot.
struct Construction {
  std::shared_ptr<EngineHandle> handle;
  std::shared_ptr<const Vocabulary> vocabulary;
  const EngineInfo* info;
};

Napi::Object ObjectArgument(const Napi::CallbackInfo& info, size_t i, const char* key) {
  if (info.Length() <= i || !info[i].IsObject()) {
    throw Error(ErrorCode::kInvalidArgument, std::string(key) + " must be an object");
  }
  return info[i].As<Napi::Object>();
}

int64_t IntegerArgument(const Napi::CallbackInfo& info, size_t i, const char* key) {
  if (info.Length() <= i || !info[i].IsNumber()) {
    throw Error(ErrorCode::kInvalidArgument, std::string(key) + " must be a number");
  }
  return info[i].As<Napi::Number>().Int64Value();
}

Napi::Function FunctionOrNull(const Napi::CallbackInfo& info, size_t i) {
  return info.Length() > i && info[i].IsFunction() ? info[i].As<Napi::Function>() : Napi::Function();
}

}  // namespace

EngineHandle::EngineHandle(Napi::Env env, EngineConfig config, std::shared_ptr<const Vocabulary> vocabulary,
                           Napi::Function on_step, Napi::Function on_progress, OutputChannel::Callbacks callbacks)
    : env_(env), channel_(env, on_step, on_progress, std::move(callbacks)) {
  engine_ = std::make_unique<ThreadedEngine>(std::move(config), std::move(vocabulary), channel_);
  // Last, since the destructor of a handle that was never made does not run. Hooks run in reverse, so the engine's
  // thread ends before the channel's function goes.
  napi_add_env_cleanup_hook(env_, OnEnvironmentExit, this);
}

EngineHandle::~EngineHandle() { Shutdown(); }

void EngineHandle::OnEnvironmentExit(void* handle) {
  auto* self = static_cast<EngineHandle*>(handle);
  self->shut_down_ = true;
  self->engine_->Stop();
  self->channel_.Close();
}

void EngineHandle::Shutdown() {
  if (shut_down_) return;
  shut_down_ = true;
  napi_remove_env_cleanup_hook(env_, OnEnvironmentExit, this);
  engine_->Stop();
  channel_.Close();
}

Napi::Function EngineWrap::Define(Napi::Env env) {
  return DefineClass(
      env, "NativeEngine",
      {InstanceAccessor<&EngineWrap::Info>("info"), InstanceMethod<&EngineWrap::AddRequest>("addRequest"),
       InstanceMethod<&EngineWrap::AbortRequest>("abortRequest"),
       InstanceMethod<&EngineWrap::Acknowledge>("acknowledge"), InstanceMethod<&EngineWrap::Decode>("decode"),
       InstanceMethod<&EngineWrap::Stats>("stats"), InstanceMethod<&EngineWrap::SetKeepAlive>("setKeepAlive"),
       InstanceMethod<&EngineWrap::Close>("close")});
}

EngineWrap::EngineWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineWrap>(info) {
  if (info.Length() != 1 || !info[0].IsExternal()) {
    throw MakeJsError(info.Env(), ErrorCode::kInvalidArgument, "NativeEngine is made by createEngine");
  }
  const auto* construction = info[0].As<Napi::External<Construction>>().Data();
  handle_ = construction->handle;
  vocabulary_ = construction->vocabulary;
  info_ = Napi::Persistent(FromInfo(info.Env(), *construction->info));
  Napi::Object self = info.This().As<Napi::Object>();
  self.TypeTag(&kEngineTag);
}

Napi::Value EngineWrap::Create(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return Trampoline(env, [&]() -> Napi::Value {
    EngineConfig config = ToEngineConfig(ObjectArgument(info, 0, "config"));
    std::shared_ptr<const Vocabulary> vocabulary = ToVocabulary(info[1]);
    const Napi::Function on_step = FunctionOrNull(info, 2);
    if (on_step.IsEmpty()) throw Error(ErrorCode::kInvalidArgument, "onStep must be a function");

    const Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
    // Keeps the engine while it loads; emptied by whichever outcome comes.
    auto loading = std::make_shared<std::shared_ptr<EngineHandle>>();
    OutputChannel::Callbacks callbacks;
    callbacks.on_ready = [deferred, loading, vocabulary](Napi::Env e, const EngineInfo& engine_info) {
      Construction construction{std::exchange(*loading, nullptr), vocabulary, &engine_info};
      construction.handle->channel().SetKeepAlive(e, false);
      deferred.Resolve(e.GetInstanceData<AddonData>()->engine_constructor.New(
          {Napi::External<Construction>::New(e, &construction)}));
    };
    callbacks.on_load_failed = [deferred, loading](Napi::Env e, const EngineFailure& failure) {
      const std::shared_ptr<EngineHandle> handle = std::exchange(*loading, nullptr);
      handle->engine().Stop();
      deferred.Reject(MakeJsError(e, failure.code, failure.message).Value());
    };
    *loading = std::make_shared<EngineHandle>(env, std::move(config), vocabulary, on_step, FunctionOrNull(info, 3),
                                              std::move(callbacks));
    return deferred.Promise();
  });
}

EngineWrap& EngineWrap::Of(const Napi::CallbackInfo& info) {
  const Napi::Value self = info.This();
  if (!self.IsObject() || !self.As<Napi::Object>().CheckTypeTag(&kEngineTag)) {
    throw Error(ErrorCode::kInvalidArgument, "this must be a NativeEngine");
  }
  return *Unwrap(self.As<Napi::Object>());
}

Napi::Value EngineWrap::AddRequest(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    bool derive_seed = false;
    Request request = ToRequest(ObjectArgument(info, 0, "request"), &derive_seed);
    const RequestId id = Of(info).handle_->engine().AddRequest(std::move(request), derive_seed);
    return Napi::Number::New(info.Env(), static_cast<double>(id));
  });
}

Napi::Value EngineWrap::AbortRequest(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    const auto id = static_cast<RequestId>(IntegerArgument(info, 0, "requestId"));
    Of(info).handle_->engine().AbortRequest(id);
    return info.Env().Undefined();
  });
}

Napi::Value EngineWrap::Acknowledge(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    const auto id = static_cast<RequestId>(IntegerArgument(info, 0, "requestId"));
    Of(info).handle_->engine().Acknowledge(id, static_cast<int>(IntegerArgument(info, 1, "numTokens")));
    return info.Env().Undefined();
  });
}

Napi::Value EngineWrap::Decode(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    const EngineWrap& self = Of(info);
    if (self.vocabulary_ == nullptr) throw Error(ErrorCode::kInvalidArgument, "this engine has no tokenizer");
    const std::vector<int32_t> ids = ToInt32Vector(info[0], "tokenIds");
    return Napi::String::New(info.Env(), heddle::Decode(self.vocabulary_, ids, info[1].ToBoolean().Value()));
  });
}

Napi::Value EngineWrap::Stats(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    EngineHandle& handle = *Of(info).handle_;
    return FromStats(info.Env(), handle.engine().stats(), handle.channel().num_callbacks());
  });
}

Napi::Value EngineWrap::SetKeepAlive(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    Of(info).handle_->channel().SetKeepAlive(info.Env(), info[0].ToBoolean().Value());
    return info.Env().Undefined();
  });
}

Napi::Value EngineWrap::Close(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    // Stop waits for the step under way, so it runs off the JavaScript thread; the rest needs that thread.
    const std::shared_ptr<EngineHandle> handle = Of(info).handle_;
    return PromiseWorker<bool>::Start(
        info.Env(),
        [handle] {
          handle->engine().Stop();
          return true;
        },
        [handle](Napi::Env env, bool) {
          handle->Shutdown();
          return env.Undefined();
        });
  });
}

Napi::Value EngineWrap::Info(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value { return Of(info).info_.Value(); });
}

}  // namespace heddle
