// Division and multiples, rounded up. Of what is not negative.
#pragma once

#include <cstdint>

namespace heddle {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

}  // namespace heddle
