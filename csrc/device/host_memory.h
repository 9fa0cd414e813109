// How much memory and how many processors this process may use.
#pragma once

#include <cstdint>

namespace heddle {

// Bytes that can be had without swapping: what the system reports as available, or what is left under the control
// group's limit when that is less.
int64_t AvailableHostMemory();

// Processors that this process may run on, at least 1: those of its affinity mask, or as many as the control group's
// quota of processor time keeps busy when that is less.
int NumAvailableProcessors();

}  // namespace heddle
