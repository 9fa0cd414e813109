// A block of zeroed host memory, 64-byte aligned, given back on destruction.
//
// Blocks of 2 MiB and more come straight from the kernel with a hint for huge pages: they are zero without being
// touched, so an unused part of a KV cache costs no resident memory.
#pragma once

#include <cstddef>
#include <memory>

namespace heddle {

// Fails with kInsufficientMemory.
std::shared_ptr<void> AllocateHost(size_t bytes);

}  // namespace heddle
