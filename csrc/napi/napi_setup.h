// The one place that includes napi.h, so that its settings (exceptions on, API version; see binding.gyp) hold for all.
#pragma once

// An exception that cannot be raised because its environment is going away is dropped, rather than ending the process.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#include <napi.h>

#include <exception>

#include "base/error.h"

namespace heddle {

// An Error object with the `code` that lib/errors.ts maps to a class.
inline Napi::Error MakeJsError(Napi::Env env, ErrorCode code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, ErrorCodeName(code)));
  return error;
}

// Runs `body`, and turns what it throws into a JavaScript exception: the only way out of an export.
template <typename Body>
auto Trampoline(Napi::Env env, const Body& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const Error& error) {
    throw MakeJsError(env, error.code(), error.what());
  } catch (const std::exception& error) {
    throw MakeJsError(env, ErrorCode::kInternal, error.what());
  }
}

}  // namespace heddle
