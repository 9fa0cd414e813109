// The one exception type of the core, and the check that raises it for our own bugs.
//
// Thread-safe: plain values. Thrown anywhere in csrc/; caught only by the loop of a rank's thread, the loop of the
// engine thread, the thread of a compression and the native-module trampoline, which hand the code on unchanged, by
// EngineCore around what a request does by itself, and by WeightCache around a file that need not be there.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace heddle {

// Mirrors the `code` of the error classes in lib/errors.ts, one to one.
enum class ErrorCode {
  kInvalidArgument,     // the caller passed something that can never work
  kModelFormat,         // a file of the checkpoint is broken or lies
  kUnsupportedModel,    // a sound checkpoint that asks for something we do not compute
  kInsufficientMemory,  // weights or KV cache do not fit
  kQueueFull,           // admission refused; try later
  kRankFailed,          // a rank died or threw
  kCommTimeout,         // a collective missed its deadline
  kEngineClosed,        // used after close()
  kEngineFailed,        // used after a failure that poisoned the engine
  kRequestFailed,       // the engine failed at one request, and goes on
  kCancelled,           // work was abandoned because the engine is closing
  kInternal,            // a bug of ours
};

// Stable spelling, e.g. "ERR_MODEL_FORMAT".
const char* ErrorCodeName(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

[[noreturn]] void ThrowInternal(const char* file, int line, const char* condition, const std::string& detail);

}  // namespace heddle

// Throws Error{kInternal} with file:line when an invariant of ours does not hold. Never used on input: input gets a
// typed error. `detail` is evaluated only on failure.
#define HEDDLE_CHECK(condition, detail)                                \
  do {                                                                 \
    if (!(condition)) [[unlikely]]                                     \
      ::heddle::ThrowInternal(__FILE__, __LINE__, #condition, detail); \
  } while (0)
