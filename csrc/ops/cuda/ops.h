// The ops of a GPU's stream, as ops/ops.h declares them: tensors become the arguments of the CUDA library, whose
// kernels check them. REQUIRES: the stream is a GPU's, and everything lies in its memory.
#pragma once

#include "ops/ops.h"

namespace heddle::ops::cuda {

// `table_scales` [rows] of an int8 table, else null.
void Embedding(Stream& stream, std::span<const int32_t> ids, const TensorView& table, const float* table_scales,
               int64_t first_id, float scale, const TensorView& y);
void RmsNorm(Stream& stream, const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y);
void AddRmsNorm(Stream& stream, const TensorView& x, const TensorView& residual, const TensorView& weight,
                float epsilon, const TensorView& y);
void AddBias(Stream& stream, const TensorView& bias, const TensorView& y);
void Matmul(Stream& stream, const TensorView& x, const PackedMatrix& weight, const TensorView& y,
            const TensorView* bias);
void GatedMatmul(Stream& stream, Activation activation, const TensorView& x, const PackedMatrix& gate_up,
                 const TensorView& y, const TensorView* bias);
void SoftCap(Stream& stream, float cap, const TensorView& x);
void GatherRows(Stream& stream, const TensorView& x, std::span<const int32_t> rows, const TensorView& y);
void RotateAndStore(Stream& stream, std::span<const int32_t> positions, const TensorView& cos_sin, const TensorView& q,
                    const TensorView& k, const TensorView& v, std::span<const int64_t> slot_mapping,
                    const KVCacheView& cache);
void PagedAttention(Stream& stream, const TensorView& q, const KVCacheView& cache, const AttentionMetadata& metadata,
                    const AttentionParams& params, const TensorView& out);

}  // namespace heddle::ops::cuda
