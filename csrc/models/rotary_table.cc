#include "models/rotary_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace heddle {
namespace {

// base^(2i / dim), for each i. The power itself is taken in double, so that its float32 is the nearest one.
std::vector<float> PositionPeriods(float base, int dim) {
  std::vector<float> periods;
  for (int i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    periods.push_back(static_cast<float>(std::pow(static_cast<double>(base), static_cast<double>(exponent))));
  }
  return periods;
}

std::vector<float> PlainFrequencies(float base, int dim) {
  std::vector<float> frequencies = PositionPeriods(base, dim);
  for (float& frequency : frequencies) frequency = 1.0f / frequency;
  return frequencies;
}

std::vector<float> LinearFrequencies(const RopeConfig& rope) {
  std::vector<float> frequencies = PlainFrequencies(static_cast<float>(rope.theta), rope.rotary_dim);
  for (float& frequency : frequencies) frequency /= static_cast<float>(rope.factor);
  return frequencies;
}

// NTK-aware scaling for a sequence of seq_len > max_position_embeddings tokens, in float32 as transformers does it.
std::vector<float> DynamicFrequencies(const RopeConfig& rope, int max_position_embeddings, int seq_len) {
  const auto factor = static_cast<float>(rope.factor);
  const float stretch = factor * static_cast<float>(seq_len) / static_cast<float>(max_position_embeddings) -
                        static_cast<float>(rope.factor - 1.0);
  const double exponent = static_cast<double>(rope.rotary_dim) / (rope.rotary_dim - 2);
  const auto power = static_cast<float>(std::pow(static_cast<double>(stretch), exponent));
  return PlainFrequencies(static_cast<float>(rope.theta) * power, rope.rotary_dim);
}

// YaRN: dimensions that turn often within the trained length keep their frequency, those that turn seldom are
// interpolated, and between the two runs a ramp.
std::vector<float> YarnFrequencies(const RopeConfig& rope) {
  const int dim = rope.rotary_dim;
  const auto dimension_of_rotations = [&](double rotations) {
    return dim * std::log(rope.original_max_position_embeddings / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = dimension_of_rotations(rope.beta_fast);
  double high = dimension_of_rotations(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;

  std::vector<float> frequencies = PositionPeriods(static_cast<float>(rope.theta), dim);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float period = frequencies[i];
    const float extrapolated = 1.0f / period;
    const float interpolated = 1.0f / (static_cast<float>(rope.factor) * period);
    const float position = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float keep = 1.0f - std::clamp(position, 0.0f, 1.0f);
    frequencies[i] = interpolated * (1.0f - keep) + extrapolated * keep;
  }
  return frequencies;
}

std::vector<float> Llama3Frequencies(const RopeConfig& rope) {
  const double original = rope.original_max_position_embeddings;
  const auto low_wavelength = static_cast<float>(original / rope.low_freq_factor);
  const auto high_wavelength = static_cast<float>(original / rope.high_freq_factor);
  const auto factor = static_cast<float>(rope.factor);
  std::vector<float> frequencies = PlainFrequencies(static_cast<float>(rope.theta), rope.rotary_dim);
  for (float& frequency : frequencies) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
    if (wavelength > low_wavelength) {
      frequency /= factor;
    } else if (wavelength >= high_wavelength) {
      const float smooth = (static_cast<float>(original) / wavelength - static_cast<float>(rope.low_freq_factor)) /
                           static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
      frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
    }
  }
  return frequencies;
}

std::vector<float> Frequencies(const RopeConfig& rope) {
  switch (rope.type) {
    case RopeType::kLinear:
      return LinearFrequencies(rope);
    case RopeType::kYarn:
      return YarnFrequencies(rope);
    case RopeType::kLlama3:
      return Llama3Frequencies(rope);
    case RopeType::kDefault:
    case RopeType::kDynamic:
      break;
  }
  return PlainFrequencies(static_cast<float>(rope.theta), rope.rotary_dim);
}

// YaRN scales cosines and sines, and with them the logits of attention.
float AttentionFactor(const RopeConfig& rope) {
  if (rope.type != RopeType::kYarn) return 1.0f;
  if (rope.attention_factor > 0) return static_cast<float>(rope.attention_factor);
  const auto scale_of = [&](double mscale) {
    return rope.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(rope.factor) + 1.0;
  };
  if (rope.mscale > 0 && rope.mscale_all_dim > 0) {
    return static_cast<float>(scale_of(rope.mscale) / scale_of(rope.mscale_all_dim));
  }
  return static_cast<float>(scale_of(1.0));
}

void FillRow(const std::vector<float>& frequencies, int position, float scale, float* row) {
  const size_t half = frequencies.size();
  for (size_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    row[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * scale;
    row[half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * scale;
  }
}

}  // namespace

RotaryTable::RotaryTable(const RopeConfig& rope, int head_dim, int max_position_embeddings, int max_positions)
    : rope_(rope), max_position_embeddings_(max_position_embeddings), scale_(AttentionFactor(rope)) {
  HEDDLE_CHECK(rope.rotary_dim >= 2 && rope.rotary_dim % 2 == 0 && rope.rotary_dim <= head_dim,
               std::to_string(rope.rotary_dim) + " of " + std::to_string(head_dim));
  frequencies_ = Frequencies(rope);
  cos_sin_ = Tensor(DType::kFloat32, {max_positions, rope.rotary_dim});
}

void RotaryTable::FillTo(int num_positions) {
  HEDDLE_CHECK(num_positions <= cos_sin_.view().dim(0), std::to_string(num_positions));
  for (; num_filled_ < num_positions; ++num_filled_) {
    if (rope_.type == RopeType::kDynamic && num_filled_ >= max_position_embeddings_) {
      frequencies_ = DynamicFrequencies(rope_, max_position_embeddings_, num_filled_ + 1);
    }
    FillRow(frequencies_, num_filled_, scale_, cos_sin_.view().Row<float>(num_filled_));
  }
}

void RotaryTable::MoveTo(CudaStream& cuda) {
  FillTo(static_cast<int>(cos_sin_.view().dim(0)));
  const Tensor moved(DType::kFloat32, cos_sin_.view().shape, cuda);
  cuda.Copy(moved.view().data, cos_sin_.view().data,
            static_cast<size_t>(cos_sin_.view().shape.NumElements()) * sizeof(float));
  cos_sin_ = moved;
}

}  // namespace heddle
