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

  std::span<const int32_t> generated() const { return token_ids.subspan(static_cast<size_t>(prompt_len)); }
};

}  // namespace heddle
