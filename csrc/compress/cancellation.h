// How a run that was cancelled ends.
#pragma once

#include <atomic>

#include "base/error.h"

namespace heddle {

// Any thread. With kCancelled.
inline void ThrowIfCancelled(const std::atomic<bool>& cancelled) {
  if (cancelled.load(std::memory_order_relaxed)) throw Error(ErrorCode::kCancelled, "the run was cancelled");
}

}  // namespace heddle
