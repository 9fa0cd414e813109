#include "compress/layer_inputs.h"

#include <algorithm>

#include "models/registry.h"

namespace heddle {
namespace {

LayerInput InputOf(const std::vector<StoredMatrix>& matrices, const std::string& norm) {
  LayerInput input{{}, matrices[0].columns, norm};
  for (const StoredMatrix& matrix : matrices) {
    // Parts of one stored matrix have one name.
    const bool known = std::find(input.prefixes.begin(), input.prefixes.end(), matrix.prefix) != input.prefixes.end();
    if (!known) input.prefixes.push_back(matrix.prefix);
  }
  return input;
}

}  // namespace

DecoderInputs FindLayerInputs(const SourceCheckpoint& source) {
  const ModelFamily& family = FindModelFamily(source.config());
  const DecoderWeights weights(family.parse_config(source.config()), family.options);
  DecoderInputs result{{}, family.options.norm_offset};
  for (const DecoderLayerWeights& layer : weights.layers) {
    const AttentionWeights& attention = layer.attention;
    const GatedMlpWeights& mlp = layer.mlp;
    const std::string& mlp_norm = layer.pre_mlp_norm.empty() ? layer.post_attention_norm : layer.pre_mlp_norm;
    result.inputs.push_back(InputOf({attention.q, attention.k, attention.v}, layer.input_norm));
    result.inputs.push_back(InputOf({attention.o}, ""));
    result.inputs.push_back(InputOf({mlp.gate, mlp.up}, mlp_norm));
    result.inputs.push_back(InputOf({mlp.down}, ""));
  }
  return result;
}

}  // namespace heddle
