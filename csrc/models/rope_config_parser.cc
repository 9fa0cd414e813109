#include "models/rope_config_parser.h"

#include <algorithm>
#include <string>

#include "base/config_reader.h"
#include "base/error.h"

namespace heddle {
namespace {

constexpr double kTiny = 1e-6;  // stands for "more than zero" in ranges
constexpr double kHuge = 1e6;
constexpr double kMinTheta = 2;
constexpr double kMaxTheta = 1e15;
constexpr int kMaxPositions = 100'000'000;

constexpr const char* kLayerTypes[] = {"full_attention", "sliding_attention"};

// Reads one setting: `rope_` holds its own members, `top_` the whole config.
class RopeParser {
 public:
  RopeParser(ConfigReader rope, const ConfigReader& top, const ConfigDefaults& defaults, const ModelConfig& model)
      : rope_(std::move(rope)), top_(top), defaults_(defaults), model_(model) {}

  RopeConfig Parse(double default_theta) const {
    RopeConfig rope;
    rope.theta = rope_.Number("rope_theta", kMinTheta, kMaxTheta, default_theta);
    rope.rotary_dim = RotaryDim();
    rope.type = Type();
    switch (rope.type) {
      case RopeType::kDefault:
        break;
      case RopeType::kLinear:
        rope.factor = rope_.Number("factor", kTiny, kHuge);
        break;
      case RopeType::kDynamic:
        ReadDynamic(rope);
        break;
      case RopeType::kYarn:
        ReadYarn(rope);
        break;
      case RopeType::kLlama3:
        ReadLlama3(rope);
        break;
    }
    return rope;
  }

 private:
  const char* TypeKey() const { return rope_.Has("rope_type") ? "rope_type" : "type"; }

  RopeType Type() const {
    const std::string name = rope_.String(TypeKey(), "default");
    if (name == "default") return RopeType::kDefault;
    if (!defaults_.rope_scaling) rope_.FailUnsupported(TypeKey(), " for this architecture");
    if (name == "linear") return RopeType::kLinear;
    if (name == "dynamic") return RopeType::kDynamic;
    if (name == "yarn") return RopeType::kYarn;
    if (name == "llama3") return RopeType::kLlama3;
    rope_.FailUnsupported(TypeKey(), "; the types are default, linear, dynamic, yarn and llama3");
  }

  int RotaryDim() const {
    constexpr const char* kKey = "partial_rotary_factor";
    const ConfigReader& holder = rope_.Has(kKey) ? rope_ : top_;
    const double factor = holder.Number(kKey, kTiny, 1.0, 1.0);
    if (factor != 1.0 && !defaults_.partial_rotary) holder.FailUnsupported(kKey, " for this architecture");
    const int rotary_dim = static_cast<int>(model_.head_dim * factor);
    if (rotary_dim < 2 || rotary_dim % 2 != 0) {
      holder.FailFormat(kKey, "a part of head_dim " + std::to_string(model_.head_dim) + " that is even");
    }
    return rotary_dim;
  }

  int OriginalMaxPositions() const {
    constexpr const char* kKey = "original_max_position_embeddings";
    const ConfigReader& holder = top_.Has(kKey) ? top_ : rope_;
    return holder.Int(kKey, 1, kMaxPositions, model_.max_position_embeddings);
  }

  void ReadDynamic(RopeConfig& rope) const {
    rope.factor = rope_.Number("factor", kTiny, kHuge);
    rope.original_max_position_embeddings = model_.max_position_embeddings;
    if (rope.rotary_dim == 2)
      rope_.FailUnsupported(TypeKey(), " with two rotated elements");  // exponent dim / (dim - 2)
  }

  void ReadYarn(RopeConfig& rope) const {
    rope.original_max_position_embeddings = OriginalMaxPositions();
    const double implied = static_cast<double>(model_.max_position_embeddings) / rope.original_max_position_embeddings;
    rope.factor = rope_.Number("factor", kTiny, kHuge, implied);
    rope.attention_factor = rope_.Number("attention_factor", kTiny, kHuge, rope.attention_factor);
    rope.beta_fast = rope_.Number("beta_fast", kTiny, kHuge, rope.beta_fast);
    rope.beta_slow = rope_.Number("beta_slow", kTiny, kHuge, rope.beta_slow);
    rope.mscale = rope_.Number("mscale", 0, kHuge, rope.mscale);
    rope.mscale_all_dim = rope_.Number("mscale_all_dim", 0, kHuge, rope.mscale_all_dim);
    rope.truncate = rope_.Bool("truncate", rope.truncate);
  }

  void ReadLlama3(RopeConfig& rope) const {
    rope.original_max_position_embeddings = OriginalMaxPositions();
    rope.factor = rope_.Number("factor", kTiny, kHuge);
    rope.low_freq_factor = rope_.Number("low_freq_factor", kTiny, kHuge);
    rope.high_freq_factor = rope_.Number("high_freq_factor", kTiny, kHuge);
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      rope_.FailFormat("high_freq_factor", "greater than low_freq_factor");
    }
  }

  ConfigReader rope_;
  const ConfigReader& top_;
  const ConfigDefaults& defaults_;
  const ModelConfig& model_;
};

// The object, or null when it is absent or empty.
const Json* NonEmptyObject(const ConfigReader& reader, const char* key) {
  const Json* object = reader.Object(key);
  return object != nullptr && !object->AsObject().empty() ? object : nullptr;
}

bool IsPerLayerType(const Json& parameters) {
  return parameters.Find(kLayerTypes[0]) != nullptr || parameters.Find(kLayerTypes[1]) != nullptr;
}

// The members of one layer type: rope_scaling, where it applies, goes before rope_parameters[layer_type].
ConfigReader LayerTypeReader(const Json* scaling, const Json* parameters, const std::string& layer_type) {
  std::vector<const Json*> objects;
  if (scaling != nullptr) objects.push_back(scaling);
  const std::string path = scaling != nullptr ? "rope_scaling." : "rope_parameters." + layer_type + ".";
  const Json* nested = parameters != nullptr ? parameters->Find(layer_type) : nullptr;
  if (nested != nullptr && !nested->IsNull()) objects.push_back(nested);
  return {std::move(objects), path};
}

}  // namespace

std::vector<RopeConfig> ParseRopes(const Json& config, const ConfigDefaults& defaults, const ModelConfig& model) {
  const ConfigReader top(config);
  const Json* scaling = NonEmptyObject(top, "rope_scaling");
  const Json* parameters = NonEmptyObject(top, "rope_parameters");
  const double theta = top.Number("rope_theta", kMinTheta, kMaxTheta, defaults.rope_theta);
  const bool per_layer_type = parameters != nullptr && IsPerLayerType(*parameters);

  if (defaults.rope_layout == RopeLayout::kShared) {
    if (per_layer_type) top.FailUnsupported("rope_parameters", " per layer type for this architecture");
    const Json* own = scaling != nullptr ? scaling : parameters;
    const std::string path = scaling != nullptr ? "rope_scaling." : "rope_parameters.";
    const ConfigReader rope(own != nullptr ? std::vector{own} : std::vector<const Json*>{}, path);
    return {RopeParser(rope, top, defaults, model).Parse(theta)};
  }

  if (parameters != nullptr && !per_layer_type) {
    top.FailFormat("rope_parameters", "an object with the members full_attention and sliding_attention");
  }
  const double sliding_theta = top.Number("rope_local_base_freq", kMinTheta, kMaxTheta, defaults.sliding_rope_theta);
  const ConfigReader full = LayerTypeReader(scaling, parameters, kLayerTypes[0]);
  const ConfigReader sliding = LayerTypeReader(nullptr, parameters, kLayerTypes[1]);
  return {RopeParser(full, top, defaults, model).Parse(theta),
          RopeParser(sliding, top, defaults, model).Parse(sliding_theta)};
}

int MaxPositions(const ModelConfig& model, const ConfigDefaults& defaults) {
  // Gemma 3 scales its full attention alone, and counts that in max_position_embeddings already.
  if (defaults.rope_layout != RopeLayout::kShared) return model.max_position_embeddings;
  const RopeConfig& rope = model.ropes[0];
  double positions = model.max_position_embeddings;
  if (rope.type == RopeType::kYarn) positions = rope.original_max_position_embeddings;
  if (rope.type != RopeType::kDefault && rope.type != RopeType::kLlama3) positions *= rope.factor;
  return static_cast<int>(std::clamp(positions, 1.0, static_cast<double>(kMaxPositions)));
}

}  // namespace heddle
