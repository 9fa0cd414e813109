// How one request samples and when it stops. Plain data; validated and completed with defaults before it gets here.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace heddle {

struct RepetitionDetection {
  int max_pattern_size = 0;  // 0: off
  int min_pattern_size = 0;
  int min_count = 0;
};

struct SamplingParams {
  int n = 1;                 // sequences a prompt
  float temperature = 1.0f;  // 0: greedy
  float top_p = 1.0f;
  int top_k = 0;  // 0: all
  float min_p = 0.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  uint64_t seed = 0;  // always set: the engine draws one when the caller gives none

  int max_tokens = 0;  // at least 1; already capped by the room left in max_model_len
  int min_tokens = 0;
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;  // beside the model's end-of-sequence ids
  std::vector<std::string> stop;        // UTF-8, none empty
  bool include_stop_str_in_output = false;

  int logprobs = -1;         // k best a generated token; -1: none
  int prompt_logprobs = -1;  // the same for prompt tokens
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;       // empty: all
  std::vector<std::vector<int32_t>> bad_words;  // token sequences that must not be completed
  RepetitionDetection repetition_detection;

  bool detokenize = true;
  bool skip_special_tokens = true;
  int stream_interval = 1;  // tokens between emissions
  bool final_only = false;  // one emission, at the end
  bool skip_reading_prefix_cache = false;

  // Whether a token is chosen with regard to those before it, beyond what the model makes of them.
  bool depends_on_history() const {
    return repetition_penalty != 1 || frequency_penalty != 0 || presence_penalty != 0 || !bad_words.empty();
  }
};

}  // namespace heddle
