// Zeroed memory, 64-byte aligned, given back with the last copy of its pointer: whoever allocates it, and host memory.
//
// Blocks of host memory of 2 MiB and more come straight from the kernel, begin where a huge page does, and carry a hint
// for huge pages: they are zero without being touched, so an unused part of a KV cache costs no resident memory.
#pragma once

#include <cstddef>
#include <memory>

namespace heddle {

// Where tensors come to lie: in host memory (HostSlab) or in that of a GPU (CudaStream).
class Allocator {
 public:
  virtual ~Allocator() = default;
  // Fails with kInsufficientMemory.
  virtual std::shared_ptr<void> Allocate(size_t bytes) = 0;
};

// Fails with kInsufficientMemory.
std::shared_ptr<void> AllocateHost(size_t bytes);

// Blocks like AllocateHost's, for what lives equally long, a model's weights say. Those of less than 2 MiB lie side by
// side in huge pages: reading through pages of 4 KiB is slower. Memory goes back when the last of the blocks that share
// it does; the slab itself may go before them. Not safe from several threads.
class HostSlab : public Allocator {
 public:
  std::shared_ptr<void> Allocate(size_t bytes) override;

 private:
  std::shared_ptr<void> chunk_;
  size_t used_ = 0;  // of the chunk
};

}  // namespace heddle
