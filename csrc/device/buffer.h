// A block of zeroed host memory, 64-byte aligned, given back on destruction.
//
// Blocks of 2 MiB and more come straight from the kernel, begin where a huge page does, and carry a hint for huge
// pages: they are zero without being touched, so an unused part of a KV cache costs no resident memory.
#pragma once

#include <cstddef>
#include <memory>

namespace heddle {

// Fails with kInsufficientMemory.
std::shared_ptr<void> AllocateHost(size_t bytes);

// Blocks like AllocateHost's, for what lives equally long, a model's weights say. Those of less than 2 MiB lie side by
// side in huge pages: reading through pages of 4 KiB is slower. Memory goes back when the last of the blocks that share
// it does; the slab itself may go before them. Not safe from several threads.
class HostSlab {
 public:
  // Fails with kInsufficientMemory.
  std::shared_ptr<void> Allocate(size_t bytes);

 private:
  std::shared_ptr<void> chunk_;
  size_t used_ = 0;  // of the chunk
};

}  // namespace heddle
