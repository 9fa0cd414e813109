// The ops behind the table, one function each: checks its arguments, launches, throws Failure.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// kernels/
void FillRandom(HeddleCudaStream& stream, const HeddleCudaMatrix& y, uint64_t seed, float deviation);
void Embedding(HeddleCudaStream& stream, const HeddleCudaEmbedding& op);
void FillSampled(HeddleCudaStream& stream, int32_t* ids, int64_t num_ids, const int32_t* sampled);
void RmsNorm(HeddleCudaStream& stream, const HeddleCudaRmsNorm& op);
void AddRmsNorm(HeddleCudaStream& stream, const HeddleCudaAddRmsNorm& op);
void AddBias(HeddleCudaStream& stream, const HeddleCudaAddBias& op);
void SoftCap(HeddleCudaStream& stream, const HeddleCudaSoftCap& op);
void GatherRows(HeddleCudaStream& stream, const HeddleCudaGatherRows& op);
void RotateAndStore(HeddleCudaStream& stream, const HeddleCudaRotateAndStore& op);

// gemm/
void Matmul(HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void GatedMatmul(HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

// attention/
void PagedAttention(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);
// Every sequence has one token in the step: split over the context, joined by the last block of each head.
void DecodeAttention(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);
// Any number of tokens a sequence.
void PrefillAttention(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);

}  // namespace heddle::cuda
