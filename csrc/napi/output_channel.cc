#include "napi/output_channel.h"

#include <iterator>
#include <string>
#include <utility>

#include "napi/convert.h"

namespace heddle {
namespace {

// Seldom anything waits: then nothing is moved but the vector itself.
template <typename T>
void Append(std::vector<T>& to, std::vector<T>&& from) {
  if (to.empty()) {
    to = std::move(from);
    return;
  }
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

void Join(EngineOutput& to, EngineOutput&& from) {
  Append(to.deltas, std::move(from.deltas));
  Append(to.token_ids, std::move(from.token_ids));
  Append(to.started, std::move(from.started));
  Append(to.step_seconds, std::move(from.step_seconds));
  Append(to.step_tokens, std::move(from.step_tokens));
  if (from.failure) to.failure = std::move(from.failure);
}

}  // namespace

OutputChannel::OutputChannel(Napi::Env env, Napi::Function on_step, Napi::Function on_progress, Callbacks callbacks)
    : callbacks_(std::move(callbacks)) {
  if (!on_progress.IsEmpty()) on_progress_ = Napi::Persistent(on_progress);
  function_ = Function::New(env, on_step, "heddle", /*maxQueueSize=*/0, /*initialThreadCount=*/1, this);
}

OutputChannel::~OutputChannel() { Close(); }

template <typename Change>
void OutputChannel::Post(const Change& change) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  change(pending_);
  if (scheduled_) return;
  scheduled_ = function_.NonBlockingCall() == napi_ok;
}

void OutputChannel::OnProgress(double fraction) {
  Post([&](Pending& pending) { pending.progress = fraction; });
}

void OutputChannel::OnReady(const EngineInfo& info) {
  Post([&](Pending& pending) { pending.info = info; });
}

void OutputChannel::OnLoadFailed(const EngineFailure& failure) {
  Post([&](Pending& pending) { pending.load_failure = failure; });
}

void OutputChannel::OnOutput(EngineOutput output) {
  Post([&](Pending& pending) { Join(pending.output, std::move(output)); });
}

void OutputChannel::SetKeepAlive(Napi::Env env, bool keep_alive) {
  if (closed_) return;
  if (keep_alive) {
    function_.Ref(env);
  } else {
    function_.Unref(env);
  }
}

void OutputChannel::Close() {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
  }
  // Abort rather than Release: a call that is queued must not reach this object later.
  function_.Abort();
  on_progress_.Reset();
}

void OutputChannel::Deliver(Napi::Env env, Napi::Function on_step, OutputChannel* channel, void*) {
  // Without an environment the process is on its way out, and `channel` may be gone.
  if (env == nullptr || channel == nullptr) return;
  try {
    channel->DeliverPending(env, on_step);
  } catch (const Napi::Error& error) {
    // A worker that is being terminated runs no more JavaScript: calls then fail without an exception to report.
    if (!error.Message().empty()) channel->FailDelivery(error.Message());
  } catch (const std::exception& error) {
    channel->FailDelivery(error.what());
  }
}

// Out of memory, most likely. What was to be delivered is lost, so no request can go on: the engine is reported as
// failed, once.
void OutputChannel::FailDelivery(const std::string& reason) {
  if (std::exchange(delivery_failed_, true)) return;
  EngineOutput output;
  output.failure = {ErrorCode::kInternal, "results could not be handed to JavaScript: " + reason};
  OnOutput(std::move(output));
}

void OutputChannel::DeliverPending(Napi::Env env, Napi::Function on_step) {
  Pending pending;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    std::swap(pending, pending_);
    scheduled_ = false;
  }
  // Whatever user code does in these calls, even closing the engine, `this` is not used after the last of them.
  if (pending.progress && !on_progress_.IsEmpty()) on_progress_.Call({Napi::Number::New(env, *pending.progress)});
  if (pending.info) callbacks_.on_ready(env, *pending.info);
  if (pending.load_failure) {
    // Moved out: the callback lets go of the engine, and with it of this channel.
    const Callbacks callbacks = std::move(callbacks_);
    callbacks.on_load_failed(env, *pending.load_failure);
    return;
  }
  if (pending.output.empty()) return;
  ++num_callbacks_;
  on_step.Call({FromOutput(env, pending.output)});
}

}  // namespace heddle
