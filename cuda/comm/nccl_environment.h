// The environment that NCCL found. It reads most of its variables when a process first uses it, and never again.
#pragma once

namespace heddle::cuda {

// Keeps NCCL's variables as they are now, unless that was done before.
void RememberNcclEnvironment();

// What a variable that begins with NCCL_ was then, or null; remembers if nobody has. Lives as long as the process.
const char* NcclEnvironment(const char* name);

}  // namespace heddle::cuda
