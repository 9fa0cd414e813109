// The exports of types/addon.d.ts, as a list.
#include "napi/compression_job.h"
#include "napi/convert.h"
#include "napi/engine_wrap.h"
#include "napi/promise_worker.h"

namespace heddle {
namespace {

// planMemory(config)
Napi::Value PlanMemory(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    if (!info[0].IsObject()) throw Error(ErrorCode::kInvalidArgument, "config must be an object");
    const EngineConfig config = ToEngineConfig(info[0].As<Napi::Object>());
    return PromiseWorker<EnginePlan>::Start(
        info.Env(), [config] { return PlanEngine(config); },
        [](Napi::Env env, const EnginePlan& plan) { return FromPlan(env, plan); });
  });
}

// startCompression(config, onProgress)
Napi::Value StartCompression(const Napi::CallbackInfo& info) {
  return Trampoline(info.Env(), [&]() -> Napi::Value {
    if (!info[0].IsObject()) throw Error(ErrorCode::kInvalidArgument, "config must be an object");
    const Napi::Function on_progress = info[1].IsFunction() ? info[1].As<Napi::Function>() : Napi::Function();
    return CompressionJob::Start(info.Env(), ToCompressionOptions(info[0].As<Napi::Object>()), on_progress);
  });
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData();
  const Napi::Function engine = EngineWrap::Define(env);
  data->engine_constructor = Napi::Persistent(engine);
  env.SetInstanceData(data);
  exports.Set("createEngine", Napi::Function::New(env, EngineWrap::Create, "createEngine"));
  exports.Set("planMemory", Napi::Function::New(env, PlanMemory, "planMemory"));
  exports.Set("startCompression", Napi::Function::New(env, StartCompression, "startCompression"));
  exports.Set("NativeEngine", engine);
  return exports;
}

NODE_API_MODULE(heddle, Init)

}  // namespace
}  // namespace heddle
