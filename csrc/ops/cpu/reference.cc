#include "ops/cpu/reference.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/dtype.h"

namespace heddle::ops::reference {
namespace {

double Activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
  }
  return 0;
}

void StoreElement(const TensorView& tensor, int64_t i, float value) {
  switch (tensor.dtype) {
    case DType::kFloat32:
      tensor.Data<float>()[i] = value;
      break;
    case DType::kBFloat16:
      tensor.Data<uint16_t>()[i] = FloatToBFloat16(value);
      break;
    default:
      tensor.Data<uint16_t>()[i] = FloatToFloat16(value);
  }
}

// Rounds columns [column, column + size) to int8, into elements first, first + stride ...; returns their scale.
float StoreInt8(const TensorView& source, int64_t row, int64_t column, int64_t size, const TensorView& tensor,
                int64_t first, int64_t stride) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < size; ++i) {
    const float value = Element(source, row, column + i);
    largest = std::max(largest, std::abs(value));
    finite = finite && std::isfinite(value);
  }
  const float scale = !finite ? std::nanf("") : largest < 1e-30f ? 0 : largest / 127;
  for (int64_t i = 0; i < size; ++i) {
    const float steps = scale > 0 ? Element(source, row, column + i) * (1 / scale) : 0;
    tensor.Data<int8_t>()[first + i * stride] = static_cast<int8_t>(std::nearbyint(steps));
  }
  return scale;
}

// One sequence's keys and values by position, for one KV head.
struct Context {
  const KVCacheView& cache;
  const int32_t* blocks;
  int64_t head;

  double Key(int64_t position, int64_t d) const {
    const int64_t head_dim = cache.keys.dim(2);
    return Scale(cache.key_scales, position) *
           Element(cache.keys, blocks[position / cache.block_size],
                   (head * head_dim + d) * cache.block_size + position % cache.block_size);
  }
  double Value(int64_t position, int64_t d) const {
    const int64_t head_dim = cache.values.dim(3);
    return Scale(cache.value_scales, position) *
           Element(cache.values, blocks[position / cache.block_size],
                   (head * cache.block_size + position % cache.block_size) * head_dim + d);
  }
  double Scale(const TensorView& scales, int64_t position) const {
    if (cache.keys.dtype != DType::kInt8) return 1;
    return Element(scales, blocks[position / cache.block_size], head * cache.block_size + position % cache.block_size);
  }
};

void AttendOne(const float* q, const Context& context, int64_t position, const AttentionParams& params, float* out) {
  const int64_t begin = params.sliding_window > 0 ? std::max<int64_t>(0, position - params.sliding_window + 1) : 0;
  std::vector<double> weights;
  for (int64_t key = begin; key <= position; ++key) {
    double score = 0;
    for (int d = 0; d < params.head_dim; ++d) score += q[d] * context.Key(key, d);
    score *= params.scale;
    weights.push_back(params.soft_cap > 0 ? params.soft_cap * std::tanh(score / params.soft_cap) : score);
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (int d = 0; d < params.head_dim; ++d) {
    double value = 0;
    for (int64_t key = begin; key <= position; ++key) {
      value += weights[static_cast<size_t>(key - begin)] * context.Value(key, d);
    }
    out[d] = static_cast<float>(value / sum);
  }
}

}  // namespace

float Element(const TensorView& matrix, int64_t i, int64_t j) {
  switch (matrix.dtype) {
    case DType::kFloat32:
      return matrix.Row<float>(i)[j];
    case DType::kBFloat16:
      return BFloat16ToFloat(matrix.Row<uint16_t>(i)[j]);
    case DType::kInt8:
      return matrix.Row<int8_t>(i)[j];
    default:
      return Float16ToFloat(matrix.Row<uint16_t>(i)[j]);
  }
}

void Embedding(std::span<const int32_t> ids, const TensorView& table, int64_t first_id, float scale,
               const TensorView& y) {
  for (size_t token = 0; token < ids.size(); ++token) {
    const int64_t row = ids[token] - first_id;
    const bool inside = row >= 0 && row < table.dim(0);
    for (int64_t j = 0; j < y.dim(1); ++j) {
      y.Row<float>(static_cast<int64_t>(token))[j] = inside ? Element(table, row, j) * scale + 0.0f : 0.0f;
    }
  }
}

void RmsNorm(const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y) {
  const int64_t size = weight.dim(0);
  const int64_t num_heads = x.shape.rank() == 3 ? x.dim(1) : 1;
  for (int64_t i = 0; i < x.dim(0) * num_heads; ++i) {
    const float* in = x.Row<float>(i / num_heads) + i % num_heads * size;
    float* out = y.Row<float>(i / num_heads) + i % num_heads * size;
    double sum = 0;
    for (int64_t j = 0; j < size; ++j) sum += double{in[j]} * in[j];
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(size) + epsilon);
    for (int64_t j = 0; j < size; ++j) out[j] = static_cast<float>(in[j] * scale * weight.Data<float>()[j]);
  }
}

void AddRmsNorm(const TensorView& x, const TensorView& residual, const TensorView& weight, float epsilon,
                const TensorView& y) {
  Add(x, residual);
  RmsNorm(residual, weight, epsilon, y);
}

void Add(const TensorView& x, const TensorView& y) {
  for (int64_t i = 0; i < y.dim(0); ++i) {
    for (int64_t j = 0; j < y.dim(1); ++j) y.Row<float>(i)[j] += x.Row<float>(i)[j];
  }
}

void AddBias(const TensorView& bias, const TensorView& y) {
  for (int64_t i = 0; i < y.dim(0); ++i) {
    for (int64_t j = 0; j < y.dim(1); ++j) y.Row<float>(i)[j] += bias.Data<float>()[j];
  }
}

void RotaryEmbedding(std::span<const int32_t> positions, const TensorView& cos_sin, int num_heads, int head_dim,
                     const TensorView& x) {
  const int64_t half = cos_sin.dim(1) / 2;
  for (int64_t token = 0; token < x.dim(0); ++token) {
    const float* angles = cos_sin.Row<float>(positions[static_cast<size_t>(token)]);
    for (int64_t head = 0; head < num_heads; ++head) {
      float* pair = x.Row<float>(token) + head * head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const double cos = angles[i];
        const double sin = angles[half + i];
        const double first = pair[i];
        const double second = pair[half + i];
        pair[i] = static_cast<float>(first * cos - second * sin);
        pair[half + i] = static_cast<float>(second * cos + first * sin);
      }
    }
  }
}

void GatedActivation(Activation activation, const TensorView& gate_up, const TensorView& y) {
  for (int64_t i = 0; i < y.dim(0); ++i) {
    const float* gate = gate_up.Row<float>(i);
    const float* up = gate + y.dim(1);
    for (int64_t j = 0; j < y.dim(1); ++j)
      y.Row<float>(i)[j] = static_cast<float>(Activate(activation, gate[j]) * up[j]);
  }
}

void SoftCap(float cap, const TensorView& x) {
  for (int64_t i = 0; i < x.dim(0); ++i) {
    for (int64_t j = 0; j < x.dim(1); ++j) {
      x.Row<float>(i)[j] = static_cast<float>(cap * std::tanh(double{x.Row<float>(i)[j]} / cap));
    }
  }
}

void StoreKVCache(const TensorView& k, const TensorView& v, std::span<const int64_t> slot_mapping,
                  const KVCacheView& cache) {
  const int64_t num_heads = cache.keys.dim(1);
  const int64_t head_dim = cache.keys.dim(2);
  for (size_t token = 0; token < slot_mapping.size(); ++token) {
    const int64_t block = slot_mapping[token] / cache.block_size;
    const int64_t offset = slot_mapping[token] % cache.block_size;
    const auto row = static_cast<int64_t>(token);
    for (int64_t head = 0; head < num_heads; ++head) {
      const int64_t column = head * head_dim;
      const int64_t base = block * num_heads + head;
      const int64_t first_key = base * head_dim * cache.block_size + offset;
      const int64_t scale = base * cache.block_size + offset;
      if (cache.keys.dtype == DType::kInt8) {
        cache.key_scales.Data<float>()[scale] =
            StoreInt8(k, row, column, head_dim, cache.keys, first_key, cache.block_size);
        cache.value_scales.Data<float>()[scale] =
            StoreInt8(v, row, column, head_dim, cache.values, scale * head_dim, 1);
        continue;
      }
      for (int64_t d = 0; d < head_dim; ++d) {
        StoreElement(cache.keys, first_key + d * cache.block_size, Element(k, row, column + d));
        StoreElement(cache.values, scale * head_dim + d, Element(v, row, column + d));
      }
    }
  }
}

void PagedAttention(const TensorView& q, const KVCacheView& cache, const AttentionMetadata& metadata,
                    const AttentionParams& params, const TensorView& out) {
  const int group = params.num_heads / params.num_kv_heads;
  for (size_t seq = 0; seq < metadata.seq_lens.size(); ++seq) {
    const int32_t* blocks = metadata.block_table.data() + seq * static_cast<size_t>(metadata.max_blocks_per_seq);
    const int end = metadata.query_start_loc[seq + 1];
    for (int token = metadata.query_start_loc[seq]; token < end; ++token) {
      for (int head = 0; head < params.num_heads; ++head) {
        const int64_t column = int64_t{head} * params.head_dim;
        AttendOne(q.Row<float>(token) + column, {cache, blocks, head / group}, metadata.seq_lens[seq] - (end - token),
                  params, out.Row<float>(token) + column);
      }
    }
  }
}

int64_t ArgMax(std::span<const float> row) {
  size_t best = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    if (std::isnan(row[i])) return static_cast<int64_t>(i);
    if (row[i] > row[best]) best = i;
  }
  return static_cast<int64_t>(best);
}

double LogSumExp(std::span<const float> row) {
  const double max = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (float value : row) sum += std::exp(value - max);
  return max + std::log(sum);
}

double ExpAndSum(float max, std::span<float> row) {
  double sum = 0;
  for (float& value : row) {
    const double weight = std::exp(double{value} - max);
    value = static_cast<float>(weight);
    sum += weight;
  }
  return sum;
}

}  // namespace heddle::ops::reference
