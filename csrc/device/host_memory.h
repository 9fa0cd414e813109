// How much memory and how many processors this process may use.
#pragma once

#include <cstdint>

namespace heddle {

// Bytes that can be had without swapping: what the system reports as available, or what is left under the control
// group's limit when that is less.
int64_t AvailableHostMemory();

// Processors that this process may run on, at least 1.
int NumAvailableProcessors();

}  // namespace heddle
