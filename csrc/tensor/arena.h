// Memory for the activations of one step, reserved once: a stack of tensors that are given back in reverse order.
//
// One arena a rank, used by that rank's thread.
#pragma once

#include <cstddef>

#include "tensor/tensor.h"

namespace heddle {

class Arena {
 public:
  // Host memory.
  explicit Arena(size_t bytes) : memory_(DType::kInt8, {static_cast<int64_t>(bytes)}) {}
  Arena(size_t bytes, Allocator& allocator) : memory_(DType::kInt8, {static_cast<int64_t>(bytes)}, allocator) {}

  // 64-byte aligned, contents unspecified, valid until the enclosing Scope ends. Running out is a bug of whoever sized
  // the arena.
  TensorView Allocate(DType dtype, const Shape& shape) {
    const size_t bytes = AlignedBytes(dtype, shape);
    HEDDLE_CHECK(used_ + bytes <= capacity(), std::to_string(used_) + " + " + std::to_string(bytes) + " of " +
                                                  std::to_string(capacity()) + " bytes");
    void* data = memory_.view().Data<int8_t>() + used_;
    used_ += bytes;
    return {data, dtype, shape};
  }

  static size_t AlignedBytes(DType dtype, const Shape& shape) {
    return (static_cast<size_t>(shape.NumElements()) * DTypeSize(dtype) + 63) / 64 * 64;
  }

  size_t capacity() const { return static_cast<size_t>(memory_.view().dim(0)); }

  // Gives back everything allocated since it was made.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), used_(arena.used_) {}
    ~Scope() { arena_.used_ = used_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t used_;
  };

 private:
  Tensor memory_;
  size_t used_ = 0;
};

}  // namespace heddle
