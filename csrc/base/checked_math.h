// Unsigned arithmetic on numbers that a file supplied: a wrapped size is how a lying file becomes a wild read.
#pragma once

#include <cstdint>
#include <optional>

namespace heddle {

// The sum or product, or nullopt when it does not fit 64 bits.
constexpr std::optional<uint64_t> CheckedAdd(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

constexpr std::optional<uint64_t> CheckedMultiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

}  // namespace heddle
