#include "worker/decode_graphs.h"

#include <algorithm>

namespace heddle {

int DecodeGraphs::PaddedNumSeqs(int num_seqs, int max_num_seqs) {
  constexpr int kFine = 8;     // up to here powers of two
  constexpr int kMedium = 64;  // up to here multiples of 8, then of 16
  int padded = 1;
  if (num_seqs <= kFine) {
    while (padded < num_seqs) padded *= 2;
  } else {
    const int unit = num_seqs <= kMedium ? 8 : 16;
    padded = (num_seqs + unit - 1) / unit * unit;
  }
  return std::min(padded, max_num_seqs);
}

}  // namespace heddle
