// The ops again, in the plainest code: loops over elements, double precision inside, libm's functions. Tests hold the
// kernels against these. Arguments are those of ops/ops.h, where shapes are stated; nothing is checked.
#pragma once

#include <cstdint>
#include <span>

#include "ops/ops.h"

namespace heddle::ops::reference {

// Element (i, j) of a matrix of any of the three float types; j counts on through further dimensions.
float Element(const TensorView& matrix, int64_t i, int64_t j);

void Embedding(std::span<const int32_t> ids, const TensorView& table, int64_t first_id, float scale,
               const TensorView& y);
void RmsNorm(const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y);
void AddRmsNorm(const TensorView& x, const TensorView& residual, const TensorView& weight, float epsilon,
                const TensorView& y);
void Add(const TensorView& x, const TensorView& y);
void AddBias(const TensorView& bias, const TensorView& y);
void RotaryEmbedding(std::span<const int32_t> positions, const TensorView& cos_sin, int num_heads, int head_dim,
                     const TensorView& x);
void GatedActivation(Activation activation, const TensorView& gate_up, const TensorView& y);
void SoftCap(float cap, const TensorView& x);
void StoreKVCache(const TensorView& k, const TensorView& v, std::span<const int64_t> slot_mapping,
                  const KVCacheView& cache);
void PagedAttention(const TensorView& q, const KVCacheView& cache, const AttentionMetadata& metadata,
                    const AttentionParams& params, const TensorView& out);
int64_t ArgMax(std::span<const float> row);
double LogSumExp(std::span<const float> row);
double ExpAndSum(float max, std::span<float> row);

}  // namespace heddle::ops::reference
