// What a row's lists and penalties do to its logits, as csrc/sampler/logits_processor.h describes it.
//
// A thread block has a slice of the vocabulary and a table in shared memory of what is known about each of its tokens,
// made from the lists and the history anew: no counts outlive a step, and a sequence costs no memory but its tokens.
#pragma once

#include <cfloat>

#include "kernels/sampling_row.cuh"

namespace heddle::cuda::sampling {

class Processor {
 public:
  // `table`, which begins on 16 bytes, has an entry a token of blocks [begin_block, end_block). All threads of the
  // block make one, and none uses it for anything else.
  __device__ Processor(const Step& step, const HeddleCudaSampleRow& row, const RowView& view, float* processed,
                       int begin_block, int end_block, uint32_t* table)
      : first_token_(begin_block * kBlockSize),
        num_tokens_(min(view.vocab_size, end_block * kBlockSize) - first_token_),
        table_(table),
        allows_some_(row.allowed_ids.count > 0),
        repetition_penalty_(row.repetition_penalty),
        frequency_penalty_(row.frequency_penalty),
        presence_penalty_(row.presence_penalty) {
    for (int i = threadIdx.x; i < (end_block - begin_block) * kBlockSize; i += blockDim.x) table[i] = 0;
    __syncthreads();
    Mark(step.op.ids, row.allowed_ids, kAllowed);
    Mark(step.op.ids, row.banned_ids, kBanned);
    if (row.history_begin >= 0) CountHistory(step.op.history + row.history_begin, row.prompt_len, row.position);
    __syncthreads();
    // Biased tokens are few, so they are worked out here, where each has its bias at hand.
#pragma unroll 1
    for (int i = threadIdx.x; i < row.logit_bias.count; i += blockDim.x) {
      const int token = step.op.bias_ids[row.logit_bias.begin + i];
      if (!IsMine(token)) continue;
      uint32_t& entry = table[token - first_token_];
      processed[token] = Process(view.logits[token], entry, step.op.biases[row.logit_bias.begin + i]);
      entry |= kStored;
    }
    __syncthreads();
  }

  // Turns the lane's logits of a block into processed ones and keeps those that changed, and which they are.
  __device__ void Apply(const float* logits, int block, int lane, float* processed, uint8_t* changed,
                        float (&x)[kPerLane]) const {
    unsigned touched = 0;
#pragma unroll
    for (int run = 0; run < kPerLane; run += 4) {
      const int first = TokenOf(block, lane, run);
      const Pack<uint32_t> entries = *reinterpret_cast<const Pack<uint32_t>*>(table_ + (first - first_token_));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if ((entries.values[j] != 0 || allows_some_) && IsMine(first + j)) touched |= 1u << (run + j);
      }
    }
    // Few tokens are touched, so that one copy of the code will do, and a way through memory.
    unsigned bits = 0;
#pragma unroll 1
    for (; touched != 0; touched &= touched - 1) {
      const int j = __ffs(static_cast<int>(touched)) - 1;
      const int token = TokenOf(block, lane, j);
      const uint32_t entry = table_[token - first_token_];
      const float logit = entry & kStored ? processed[token] : Process(logits[token], entry, 0.0f);
      if (logit == logits[token]) continue;
      processed[token] = logit;
      bits |= 1u << j;
    }
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (bits >> j & 1) x[j] = processed[TokenOf(block, lane, j)];
    }
    changed[block * 32 + lane] = static_cast<uint8_t>(bits);
  }

 private:
  static constexpr uint32_t kSeen = 1u << 31;  // in the prompt
  static constexpr uint32_t kBanned = 1u << 30;
  static constexpr uint32_t kAllowed = 1u << 29;
  static constexpr uint32_t kStored = 1u << 28;    // its processed logit is in global memory already
  static constexpr uint32_t kCount = kStored - 1;  // how often it stands after the prompt

  __device__ bool IsMine(int token) const { return token >= first_token_ && token - first_token_ < num_tokens_; }

  __device__ void Mark(const int32_t* ids, HeddleCudaRange range, uint32_t flag) {
#pragma unroll 1
    for (int i = threadIdx.x; i < range.count; i += blockDim.x) {
      const int token = ids[range.begin + i];
      if (IsMine(token)) atomicOr(&table_[token - first_token_], flag);
    }
  }

  __device__ void CountHistory(const int32_t* history, int prompt_len, int length) {
    const int begin = repetition_penalty_ != 1.0f ? 0 : prompt_len;
#pragma unroll 4
    for (int i = begin + threadIdx.x; i < length; i += blockDim.x) {
      const int token = history[i];
      if (!IsMine(token)) continue;
      uint32_t* entry = &table_[token - first_token_];
      if (i < prompt_len) {
        atomicOr(entry, kSeen);
      } else {
        atomicAdd(entry, 1u);
      }
    }
  }

  // An overflow must become neither a certainty nor a NaN.
  static __device__ float Saturate(float logit) { return fminf(fmaxf(logit, -FLT_MAX), FLT_MAX); }

  __device__ float Process(float logit, uint32_t entry, float bias) const {
    if (entry & kBanned || (allows_some_ && !(entry & kAllowed)) || logit == -kInfinity) return -kInfinity;
    if (bias != 0.0f) logit = Saturate(__fadd_rn(logit, bias));
    const uint32_t count = entry & kCount;
    if (repetition_penalty_ != 1.0f && (count > 0 || entry & kSeen)) {
      logit = Saturate(logit > 0.0f ? __fdiv_rn(logit, repetition_penalty_) : __fmul_rn(logit, repetition_penalty_));
    }
    if (count > 0) {
      logit = Saturate(__fsub_rn(logit, __fmul_rn(frequency_penalty_, static_cast<float>(count))));
      logit = Saturate(__fsub_rn(logit, presence_penalty_));
    }
    return logit;
  }

  int first_token_;
  int num_tokens_;
  uint32_t* table_;
  bool allows_some_;
  float repetition_penalty_;
  float frequency_penalty_;
  float presence_penalty_;
};

}  // namespace heddle::cuda::sampling
