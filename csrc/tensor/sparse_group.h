// Which two of a group of neighbours a 2:4 sparse matrix stores.
#pragma once

#include <bit>

#include "tensor/matrix_format.h"

namespace heddle {

// Bit i is set where element i of the group is stored: all for which is_zero(i) is false, then the first zeros up to
// two in all. More than two bits are set where the group is not 2:4.
template <typename IsZero>
unsigned StoredOfGroup(const IsZero& is_zero) {
  unsigned stored = 0;
  for (const bool zeros : {false, true}) {
    for (int i = 0; i < kSparseGroup; ++i) {
      if (is_zero(i) == zeros && (!zeros || std::popcount(stored) < 2)) stored |= 1u << i;
    }
  }
  return stored;
}

}  // namespace heddle
