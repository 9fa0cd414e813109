// Independent work split over the threads of a stream. How it is split never shows in results.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/rounding.h"
#include "device/stream.h"

namespace heddle::ops {

// Fewer elements than this are done sooner by one thread than others wake up (a few microseconds).
inline constexpr int64_t kMinParallelElements = 16384;

// Calls function(begin, end) for disjoint ranges that make up [0, count). `elements` is the size of one item.
template <typename Function>
void ParallelFor(Stream& stream, int64_t count, int64_t elements, const Function& function) {
  const int num_threads = stream.threads().num_threads();
  if (num_threads == 1 || count <= 1 || count * elements < kMinParallelElements) return function(int64_t{0}, count);
  stream.threads().RunPieces(count, CeilDiv(count, num_threads),
                             [&](int, int64_t begin, int64_t end) { function(begin, end); });
}

// Calls function(row, begin, end) for pieces of columns that make up every row: for elementwise work, where a lone
// long row should not be left to one thread.
template <typename Function>
void ParallelForPieces(Stream& stream, int64_t num_rows, int64_t num_columns, const Function& function) {
  constexpr int64_t kPiece = 2048;
  const int64_t pieces = CeilDiv(num_columns, kPiece);
  ParallelFor(stream, num_rows * pieces, std::min(num_columns, kPiece), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % pieces * kPiece;
      function(i / pieces, begin, std::min(begin + kPiece, num_columns));
    }
  });
}

}  // namespace heddle::ops
