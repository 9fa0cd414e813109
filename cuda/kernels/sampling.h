// The two kernels of `sample` and what passes between them.
//
// A row of logits is cut into blocks of 256 tokens. The first kernel, spread over all multiprocessors, reads every
// logit once and leaves of each block its largest and the sum of its exponentials, for the model's own distribution and
// for the one to draw from; where the row has lists or penalties it applies them and keeps the logits that changed. The
// second, one thread block a row, works from these: a block that cannot hold what it looks for is not read again, which
// is nearly all of them.
#pragma once

#include "common/stream.h"

namespace heddle::cuda::sampling {

constexpr int kBlockSize = 256;
constexpr int kMaxVocabSize = 1 << 20;
constexpr int kMaxBlocks = kMaxVocabSize / kBlockSize;

struct alignas(16) BlockStatistics {
  float raw_max;  // NaNs apart
  float raw_sum;  // of exp(logit - raw_max); NaN where a logit is NaN or +infinity
  float max;      // of processed logits
  float sum;      // of exp((processed - max) / temperature); unspecified when greedy
};

struct RowStatistics {
  float raw_max;
  float log_sum;  // log(sum(exp(logits))); finite only where all logits are numbers and one is finite
};

// Scratch memory, for the rows of one launch.
struct Scratch {
  BlockStatistics* statistics;  // [num_rows, num_blocks]
  int32_t* best_ids;            // [num_rows, num_blocks]: of `max`, the lowest among equals
  RowStatistics* rows;          // [num_rows]
  // Of rows that are processed. Bit j of changed[row, block, lane] tells whether logit j of the lane's part of the
  // block is another one now, which is then in `processed`.
  uint8_t* changed;  // [num_rows, num_blocks, 32]
  float* processed;  // [num_rows, num_blocks * kBlockSize]
};

struct Step {
  HeddleCudaSample op;
  Scratch scratch;
  int num_blocks;
  int id_bits;           // the vocabulary has at most 2^id_bits tokens
  int blocks_per_slice;  // of a row, for one thread block of the first kernel
};

void LaunchStatistics(HeddleCudaStream& stream, const Step& step);
void LaunchChoice(HeddleCudaStream& stream, const Step& step);
void LaunchLogprobs(HeddleCudaStream& stream, const Step& step);

}  // namespace heddle::cuda::sampling
