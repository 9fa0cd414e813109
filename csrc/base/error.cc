#include "base/error.h"

namespace heddle {

const char* ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "ERR_INVALID_ARGUMENT";
    case ErrorCode::kModelFormat:
      return "ERR_MODEL_FORMAT";
    case ErrorCode::kUnsupportedModel:
      return "ERR_UNSUPPORTED_MODEL";
    case ErrorCode::kInsufficientMemory:
      return "ERR_INSUFFICIENT_MEMORY";
    case ErrorCode::kQueueFull:
      return "ERR_QUEUE_FULL";
    case ErrorCode::kRankFailed:
      return "ERR_RANK_FAILED";
    case ErrorCode::kCommTimeout:
      return "ERR_COMM_TIMEOUT";
    case ErrorCode::kEngineClosed:
      return "ERR_ENGINE_CLOSED";
    case ErrorCode::kEngineFailed:
      return "ERR_ENGINE_FAILED";
    case ErrorCode::kRequestFailed:
      return "ERR_REQUEST_FAILED";
    case ErrorCode::kCancelled:
      return "ERR_CANCELLED";
    case ErrorCode::kInternal:
      break;
  }
  return "ERR_INTERNAL";
}

void ThrowInternal(const char* file, int line, const char* condition, const std::string& detail) {
  // The base name only: messages reach users, paths of the build machine should not.
  std::string name(file);
  name = name.substr(name.find_last_of('/') + 1);
  std::string message = "internal check failed at " + name + ":" + std::to_string(line) + ": " + condition;
  if (!detail.empty()) message += " (" + detail + ")";
  throw Error(ErrorCode::kInternal, message);
}

}  // namespace heddle
