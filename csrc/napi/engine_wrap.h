// NativeEngine of types/addon.d.ts, and createEngine. Each method: unwrap, convert, call, convert back.
//
// JavaScript thread only.
#pragma once

#include <memory>

#include "napi/napi_setup.h"
#include "napi/output_channel.h"

namespace heddle {

// An engine with its channel. Shared by the wrapper, by promises under way, and by the environment's cleanup hook,
// which ends it when the environment goes first. process.exit() runs no hooks on the main thread: the process then ends
// beside the engine's threads.
class EngineHandle {
 public:
  EngineHandle(Napi::Env env, EngineConfig config, std::shared_ptr<const Vocabulary> vocabulary, Napi::Function on_step,
               Napi::Function on_progress, OutputChannel::Callbacks callbacks);
  ~EngineHandle();

  ThreadedEngine& engine() { return *engine_; }
  OutputChannel& channel() { return channel_; }

  // Ends everything, on the JavaScript thread; waits for the engine's thread. Idempotent.
  void Shutdown();

 private:
  static void OnEnvironmentExit(void* handle);

  napi_env env_;
  OutputChannel channel_;
  std::unique_ptr<ThreadedEngine> engine_;
  bool shut_down_ = false;
};

class EngineWrap : public Napi::ObjectWrap<EngineWrap> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit EngineWrap(const Napi::CallbackInfo& info);

  // createEngine(config, vocabulary, onStep, onProgress)
  static Napi::Value Create(const Napi::CallbackInfo& info);

 private:
  // The wrapper behind `this`, checked by its tag.
  static EngineWrap& Of(const Napi::CallbackInfo& info);

  Napi::Value AddRequest(const Napi::CallbackInfo& info);
  Napi::Value AbortRequest(const Napi::CallbackInfo& info);
  Napi::Value Acknowledge(const Napi::CallbackInfo& info);
  Napi::Value Decode(const Napi::CallbackInfo& info);
  Napi::Value Stats(const Napi::CallbackInfo& info);
  Napi::Value SetKeepAlive(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  Napi::Value Info(const Napi::CallbackInfo& info);

  std::shared_ptr<EngineHandle> handle_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  Napi::ObjectReference info_;
};

// What an environment keeps: one instance for the main thread and each worker.
struct AddonData {
  Napi::FunctionReference engine_constructor;
};

}  // namespace heddle
