// Arguments, scratch memory and launches of `sample`.
#include "common/sampling.h"

#include <algorithm>
#include <bit>

#include "common/checks.h"
#include "common/rounding.h"
#include "kernels/sampling.h"

namespace heddle::cuda {
namespace {

using sampling::kBlockSize;

constexpr int64_t kMaxRowsPerLaunch = 65535;  // of a grid's second dimension
constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return RoundUp(bytes, kAlignment); }

void CheckSample(const HeddleCudaSample& op) {
  CheckMatrix(op.logits, "sample's logits");
  Require(op.logits.dtype == kHeddleCudaFloat32 && HasAlignedRows(op.logits),
          "sample's logits are not float32 rows that begin on 16 bytes");
  Require(op.logits.size >= 1 && op.logits.size <= sampling::kMaxVocabSize,
          "sample takes vocabularies of 1 to 1048576 tokens");
  Require(op.rows != nullptr && op.token_ids != nullptr && op.sampled != nullptr, "an argument of sample is null");
  Require(op.max_logprobs <= HEDDLE_CUDA_MAX_LOGPROBS, "sample's max_logprobs is larger than 128");
  Require(op.max_logprobs <= 0 || (op.best_ids != nullptr && op.best_logprobs != nullptr),
          "sample has no place for the best tokens");
}

// Where the arrays of Scratch begin for this many rows, and where they end.
struct ScratchLayout {
  int64_t best_ids, rows, changed, processed, end;

  ScratchLayout(int64_t num_rows, int64_t num_blocks, bool processes) {
    const int64_t blocks = num_rows * num_blocks;
    best_ids = Aligned(blocks * static_cast<int64_t>(sizeof(sampling::BlockStatistics)));
    rows = best_ids + Aligned(blocks * static_cast<int64_t>(sizeof(int32_t)));
    changed = rows + Aligned(num_rows * static_cast<int64_t>(sizeof(sampling::RowStatistics)));
    processed = changed + (processes ? Aligned(blocks * 32) : 0);
    end = processed + (processes ? blocks * kBlockSize * static_cast<int64_t>(sizeof(float)) : 0);
  }
};

// As many rows as the workspace has room for, but at least one.
int64_t RowsPerLaunch(const HeddleCudaStream& stream, int64_t num_rows, int64_t num_blocks, bool processes) {
  const int64_t fitting = stream.workspace_bytes / ScratchLayout(1, num_blocks, processes).end;
  return std::clamp<int64_t>(fitting, 1, std::min(num_rows, kMaxRowsPerLaunch));
}

// Few enough for the slices of all rows to keep every multiprocessor busy, whole rounds of a thread block's eight
// warps.
int BlocksPerSlice(const HeddleCudaStream& stream, int64_t num_rows, int64_t num_blocks) {
  constexpr int64_t kWarps = 8;
  constexpr int64_t kMost = 32;  // a table of 32 KiB
  const int64_t slices = int64_t{stream.properties.num_multiprocessors} * 8;
  const int64_t blocks = CeilDiv(num_rows * num_blocks, slices);
  return static_cast<int>(std::clamp(RoundUp(blocks, kWarps), kWarps, kMost));
}

// The rows from `first` on.
HeddleCudaSample RowsOf(const HeddleCudaSample& op, int64_t first, int64_t num_rows) {
  HeddleCudaSample part = op;
  part.logits.data = static_cast<float*>(op.logits.data) + first * op.logits.stride;
  part.logits.num_rows = num_rows;
  part.rows += first;
  part.token_ids += first;
  part.sampled += first;
  if (op.max_logprobs > 0) {
    part.best_ids += first * op.max_logprobs;
    part.best_logprobs += first * op.max_logprobs;
  }
  return part;
}

}  // namespace

void Sample(HeddleCudaStream& stream, const HeddleCudaSample& op) {
  CheckSample(op);
  const int64_t num_rows = op.logits.num_rows;
  if (num_rows == 0) return;
  const int64_t num_blocks = CeilDiv(op.logits.size, kBlockSize);
  const bool processes = op.process_logits != 0;
  const int64_t rows_per_launch = RowsPerLaunch(stream, num_rows, num_blocks, processes);
  const ScratchLayout layout(rows_per_launch, num_blocks, processes);
  auto* scratch = static_cast<unsigned char*>(stream.Scratch(layout.end));
  for (int64_t first = 0; first < num_rows; first += rows_per_launch) {
    const int64_t rows = std::min(rows_per_launch, num_rows - first);
    const sampling::Step step{.op = RowsOf(op, first, rows),
                              .scratch = {.statistics = reinterpret_cast<sampling::BlockStatistics*>(scratch),
                                          .best_ids = reinterpret_cast<int32_t*>(scratch + layout.best_ids),
                                          .rows = reinterpret_cast<sampling::RowStatistics*>(scratch + layout.rows),
                                          .changed = scratch + layout.changed,
                                          .processed = reinterpret_cast<float*>(scratch + layout.processed)},
                              .num_blocks = static_cast<int>(num_blocks),
                              .id_bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(op.logits.size - 1))),
                              .blocks_per_slice = BlocksPerSlice(stream, rows, num_blocks)};
    sampling::LaunchStatistics(stream, step);
    sampling::LaunchChoice(stream, step);
    if (op.max_logprobs >= 0) sampling::LaunchLogprobs(stream, step);
  }
}

}  // namespace heddle::cuda
