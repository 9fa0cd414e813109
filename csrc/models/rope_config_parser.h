// The part of ParseModelConfig (models/model_config_parser.h) that reads rotary position embeddings.
#pragma once

#include <vector>

#include "models/model_config_parser.h"

namespace heddle {

// One setting, or with RopeLayout::kPerLayerType that of full and that of sliding attention, from rope_parameters
// (transformers 5) or rope_scaling, rope_theta, rope_local_base_freq and partial_rotary_factor (4). Where a config has
// several, precedence is that of transformers 5: a non-empty rope_scaling goes before rope_parameters, their members
// before those of the config itself; original_max_position_embeddings is the other way round.
//
// REQUIRES: model.head_dim and model.max_position_embeddings are set. Fails as ParseModelConfig does.
std::vector<RopeConfig> ParseRopes(const Json& config, const ConfigDefaults& defaults, const ModelConfig& model);

// The longest sequence that the model reaches with its RoPE scaling, by the rules of vLLM: linear and dynamic multiply
// max_position_embeddings by their factor, yarn the original length; otherwise it is max_position_embeddings.
// REQUIRES: model.ropes are set.
int MaxPositions(const ModelConfig& model, const ConfigDefaults& defaults);

}  // namespace heddle
