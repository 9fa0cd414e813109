#include "engine/request_output.h"

namespace heddle {
namespace {

EngineFailure Describe(SequenceFailure failure) {
  if (failure == SequenceFailure::kNoTokenAllowed) {
    // Biases and penalties are absent: they leave every token finite.
    return {ErrorCode::kInvalidArgument,
            "allowedTokenIds, badWords and minTokens must leave a token to generate, and together they leave none"};
  }
  return {ErrorCode::kRequestFailed, "the model gave logits that are not finite numbers"};
}

}  // namespace

RequestOutput::RequestOutput(const Request& request, const std::shared_ptr<const Vocabulary>& vocabulary)
    : num_open_(request.sampling_params.n), params_(request.sampling_params) {
  sequences_.resize(static_cast<size_t>(num_open_));
  for (int i = 0; i < num_open_; ++i) {
    Sequence& sequence = sequences_[static_cast<size_t>(i)];
    sequence.pending.request_id = request.id;
    sequence.pending.index = i;
    if (params_.detokenize && vocabulary != nullptr) {
      sequence.streamer = std::make_unique<TextStreamer>(
          vocabulary, TextStreamerOptions{.stop = params_.stop,
                                          .include_stop_str_in_output = params_.include_stop_str_in_output,
                                          .skip_special_tokens = params_.skip_special_tokens});
    }
  }
}

bool RequestOutput::Put(SequenceUpdate update) {
  Sequence& sequence = sequences_[static_cast<size_t>(update.sequence_index)];
  if (sequence.ended) return false;
  SequenceDelta& pending = sequence.pending;
  if (update.sequence_index == 0 && !sequence.emitted) pending.num_cached_tokens = update.num_cached_tokens;
  AppendLogprobs(pending.prompt_logprobs, std::move(update.prompt_logprobs));
  if (update.finish_reason == FinishReason::kError) {
    End(sequence, FinishReason::kError).error = Describe(update.failure);
    return false;
  }
  if (!update.sampled) return false;

  sequence.token_ids.push_back(update.token_id);
  pending.logprob += update.logprob;
  AppendLogprobs(pending.logprobs, std::move(update.logprobs));

  // The token that ended the sequence belongs to its ids, but not to its text, unless asked for.
  const bool stopped_by_token = update.stop_token_id >= 0;
  if (sequence.streamer != nullptr && (!stopped_by_token || params_.include_stop_str_in_output)) {
    const bool match_stop = update.num_generated_tokens > params_.min_tokens;
    pending.text += sequence.streamer->Put(update.token_id, match_stop);
    if (sequence.streamer->stop_index()) {
      const auto index = static_cast<size_t>(*sequence.streamer->stop_index());
      End(sequence, FinishReason::kStop).stop_string = params_.stop[index];
      return update.finish_reason == FinishReason::kNone;
    }
  }
  if (update.finish_reason != FinishReason::kNone) {
    EndDetail& end = End(sequence, update.finish_reason);
    if (stopped_by_token && !update.stopped_by_eos) end.stop_token_id = update.stop_token_id;
    end.stopped_by_repetition = update.stopped_by_repetition;
  }
  return false;
}

EndDetail& RequestOutput::End(Sequence& sequence, FinishReason reason) {
  if (sequence.streamer != nullptr && !sequence.streamer->stop_index()) {
    sequence.pending.text += sequence.streamer->Finish();
  }
  sequence.pending.finish_reason = reason;
  sequence.pending.end = std::make_unique<EndDetail>();
  sequence.ended = true;
  return *sequence.pending.end;
}

void RequestOutput::Abort() {
  for (Sequence& sequence : sequences_) {
    if (!sequence.ended) End(sequence, FinishReason::kAbort);
  }
}

void RequestOutput::Fail(const EngineFailure& failure) {
  for (Sequence& sequence : sequences_) {
    if (sequence.ended) continue;
    sequence.streamer.reset();
    End(sequence, FinishReason::kError).error = failure;
  }
}

bool RequestOutput::IsDue(const Sequence& sequence) const {
  if (sequence.closed) return false;
  if (sequence.ended) return true;
  if (params_.final_only || sequence.token_ids.empty()) return false;
  return !sequence.emitted || static_cast<int>(sequence.token_ids.size()) >= params_.stream_interval;
}

void RequestOutput::TakeDue(EngineOutput& output) {
  for (Sequence& sequence : sequences_) {
    if (!IsDue(sequence)) continue;
    SequenceDelta& delta = output.deltas.emplace_back(std::move(sequence.pending));
    delta.num_tokens = static_cast<int>(sequence.token_ids.size());
    output.token_ids.insert(output.token_ids.end(), sequence.token_ids.begin(), sequence.token_ids.end());
    sequence.token_ids.clear();
    sequence.pending = SequenceDelta();
    sequence.pending.request_id = delta.request_id;
    sequence.pending.index = delta.index;
    sequence.emitted = true;
    if (sequence.ended) {
      sequence.closed = true;
      --num_open_;
    }
  }
}

}  // namespace heddle
