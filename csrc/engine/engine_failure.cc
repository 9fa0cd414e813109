#include "engine/engine_failure.h"

#include <exception>
#include <new>

namespace heddle {

EngineFailure CurrentFailure() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorCode::kInsufficientMemory, "the system refused memory"};
  } catch (const std::exception& error) {
    return {ErrorCode::kInternal, error.what()};
  } catch (...) {
    return {ErrorCode::kInternal, "unknown exception"};
  }
}

EngineFailure CurrentRequestFailure() {
  EngineFailure failure = CurrentFailure();
  if (failure.code == ErrorCode::kInternal) failure.code = ErrorCode::kRequestFailed;
  return failure;
}

}  // namespace heddle
