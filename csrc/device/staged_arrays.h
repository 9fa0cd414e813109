// Arrays laid out one after the other in page-locked memory, so that one copy brings them all to a device.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "device/cuda_stream.h"

namespace heddle {

class StagedArrays {
 public:
  // Both have room for what is put.
  StagedArrays(void* staging, void* device)
      : staging_(static_cast<char*>(staging)), device_(static_cast<char*>(device)) {}

  // Of `count` elements of `size` bytes: arrays begin on 16 bytes.
  static constexpr size_t BytesOf(size_t count, size_t size) {
    constexpr size_t kAlignment = 16;
    return (count * size + kAlignment - 1) / kAlignment * kAlignment;
  }
  template <typename T>
  static size_t BytesOf(const std::vector<T>& values) {
    return BytesOf(values.size(), sizeof(T));
  }

  // Where the device has `values` after Copy.
  template <typename T>
  T* Put(const std::vector<T>& values) {
    if (!values.empty()) std::memcpy(staging_ + bytes_, values.data(), values.size() * sizeof(T));
    T* const at = reinterpret_cast<T*>(device_ + bytes_);
    bytes_ += BytesOf(values);
    return at;
  }

  // The staging memory is free again when the stream has come so far.
  void Copy(const CudaStream& stream) const { stream.Copy(device_, staging_, bytes_); }

  size_t bytes() const { return bytes_; }

 private:
  char* staging_;
  char* device_;
  size_t bytes_ = 0;
};

}  // namespace heddle
