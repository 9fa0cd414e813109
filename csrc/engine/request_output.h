// The text and the not yet emitted part of one request's sequences. Engine thread only.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine_output.h"
#include "text/text_streamer.h"

namespace heddle {

class RequestOutput {
 public:
  // `vocabulary` may be null: no text is made then.
  RequestOutput(const Request& request, const std::shared_ptr<const Vocabulary>& vocabulary);

  // Takes in what a step gave a sequence. Returns true when a stop string ended it here, which the scheduler cannot
  // know yet.
  bool Put(SequenceUpdate update);

  // Ends whatever has not ended, with all text that is there.
  void Abort();

  // The same after something threw: text that was held back is lost, since a streamer may be broken.
  void Fail(const EngineFailure& failure);

  // Moves what is due out: after stream_interval tokens (the first at once), at the end, or only at the end.
  void TakeDue(EngineOutput& output);

  // All sequences ended and were taken.
  bool done() const { return num_open_ == 0; }

 private:
  struct Sequence {
    std::unique_ptr<TextStreamer> streamer;  // null without text
    SequenceDelta pending;
    std::vector<int32_t> token_ids;  // of it
    bool emitted = false;            // something was, so stream_interval counts
    bool ended = false;              // nothing may be added
    bool closed = false;             // its last delta was taken
  };

  // Returns what else there is to say.
  static EndDetail& End(Sequence& sequence, FinishReason reason);
  bool IsDue(const Sequence& sequence) const;

  std::vector<Sequence> sequences_;
  int num_open_ = 0;
  SamplingParams params_;
};

}  // namespace heddle
