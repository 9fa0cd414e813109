// Which matrices of a decoder share an input, and which norm that input comes from.
#pragma once

#include <string>
#include <vector>

#include "compress/source_checkpoint.h"

namespace heddle {

struct LayerInput {
  std::vector<std::string> prefixes;  // of the matrices; the first names the input
  int64_t columns = 0;
  std::string norm;  // the vector that it was multiplied by last; empty where something else comes in between
};

struct DecoderInputs {
  std::vector<LayerInput> inputs;  // in the order in which they are computed
  float norm_offset = 0;           // what is added to a norm's stored vector
};

// Fails with kModelFormat and kUnsupportedModel as the model's family does.
DecoderInputs FindLayerInputs(const SourceCheckpoint& source);

}  // namespace heddle
