// Notices a sequence that has begun to repeat itself.
#pragma once

#include <cstdint>
#include <span>

#include "core/sampling_params.h"

namespace heddle {

// Whether `generated` ends with a pattern of min_pattern_size to max_pattern_size tokens that stands there at least
// min_count times back to back. As in vLLM, a min_pattern_size of 0 means 1, and a max_pattern_size of 0, a min_count
// below 2 or an empty range of sizes mean never. Time: max_pattern_size * min_count; a call looks at no more tokens.
bool HasRepetition(std::span<const int32_t> generated, const RepetitionDetection& detection);

}  // namespace heddle
