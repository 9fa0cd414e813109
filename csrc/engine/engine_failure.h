// What an exception becomes where the engine catches it. Plain data.
#pragma once

#include <string>

#include "base/error.h"

namespace heddle {

struct EngineFailure {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

// The failure that the exception in flight stands for. REQUIRES: called in a catch block.
EngineFailure CurrentFailure();

// The same where the exception ends one request and the engine goes on: a bug of ours becomes kRequestFailed.
EngineFailure CurrentRequestFailure();

}  // namespace heddle
