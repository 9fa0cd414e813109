// The last check of a request before it is queued. Limits live here and not only in the front end, so that no value a
// caller can send reaches the scheduler, the sampler or a kernel unchecked.
#pragma once

#include "scheduler/request.h"

namespace heddle {

struct RequestLimits {
  int vocab_size = 0;  // width of the logits
  int max_model_len = 0;
  int max_logprobs = 0;  // at most vocab_size
};

// Fails with kInvalidArgument in one sentence that names key, expectation and value.
void ValidateRequest(const Request& request, const RequestLimits& limits);

}  // namespace heddle
