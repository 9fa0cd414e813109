#include "text/text_streamer.h"

#include <utility>

#include "base/error.h"

namespace heddle {

TextStreamer::TextStreamer(std::shared_ptr<const Vocabulary> vocabulary, const TextStreamerOptions& options)
    : vocabulary_(std::move(vocabulary)), options_(options), matcher_(options.stop) {}

std::string TextStreamer::Put(int32_t token_id, bool match_stop) {
  HEDDLE_CHECK(!finished_, "token " + std::to_string(token_id) + " after the end");
  const std::string text = Decode(token_id);
  const std::optional<StopMatcher::Match> match = matcher_.Feed(text, match_stop);
  const size_t text_begin = held_.size();
  held_ += text;
  if (match) {
    stop_index_ = match->index;
    finished_ = true;
    const size_t stop_size = options_.stop[static_cast<size_t>(match->index)].size();
    held_.resize(text_begin + match->end - (options_.include_stop_str_in_output ? 0 : stop_size));
    return std::exchange(held_, {});
  }
  const size_t keep = options_.include_stop_str_in_output ? 0 : matcher_.partial_size();
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string TextStreamer::Decode(int32_t token_id) {
  std::string text;
  if (!vocabulary_->IsSpecial(token_id)) {
    decoder_.Decode(vocabulary_->bytes(token_id), text);
    return text;
  }
  decoder_.Flush(text);
  if (!options_.skip_special_tokens) {
    decoder_.Decode(vocabulary_->bytes(token_id), text);
    decoder_.Flush(text);
  }
  return text;
}

std::string TextStreamer::Finish() {
  HEDDLE_CHECK(!finished_, "finished twice");
  finished_ = true;
  decoder_.Flush(held_);
  return std::exchange(held_, {});
}

std::string Decode(std::shared_ptr<const Vocabulary> vocabulary, std::span<const int32_t> token_ids,
                   bool skip_special_tokens) {
  TextStreamer streamer(std::move(vocabulary), {.skip_special_tokens = skip_special_tokens});
  std::string text;
  for (const int32_t id : token_ids) text += streamer.Put(id);
  return text + streamer.Finish();
}

}  // namespace heddle
