// What sampling one token needs to know about its sequence.
#pragma once

#include <cstdint>
#include <span>

#include "core/sampling_params.h"

namespace heddle {

struct SamplingInput {
  const SamplingParams* params = nullptr;
  std::span<const int32_t> token_ids;  // prompt, then generated
  int prompt_len = 0;
  int sequence_index = 0;
  std::span<const int32_t> eos_token_ids;
  int num_pending_tokens = 0;  // generated after token_ids, and not known yet

  int num_tokens() const { return static_cast<int>(token_ids.size()) + num_pending_tokens; }
  int num_generated() const { return num_tokens() - prompt_len; }
  std::span<const int32_t> generated() const { return token_ids.subspan(static_cast<size_t>(prompt_len)); }
};

}  // namespace heddle
