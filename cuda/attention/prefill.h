// The kernels behind PrefillAttention. Each takes any number of tokens a sequence; arguments have been checked.
//
// What keys and values hold that no token of a sequence sees is of no consequence. Of those that some do, the
// tensor-core kernels ask more: they multiply values by a weight of zero for tokens of the same tile, a few before,
// that do not see them yet, so a value that is not finite reaches these too.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// Hopper's tensor cores: 16-bit floats of one type in queries and cache, or an int8 cache, a head_dim of 64, 96, 128 or
// 256, no soft cap.
bool CanPrefillWgmma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);
void PrefillWgmma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);

// Any tensor cores: the same, with or without a soft cap.
bool CanPrefillMma(const HeddleCudaPagedAttention& op);
void PrefillMma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);
// For queries of a 16-bit type T and caches of the same or of int8; instantiated in files of their own.
template <typename T, bool kInt8>
void PrefillMmaHeads(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);

// Every op, without tensor cores.
void PrefillGeneric(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);

}  // namespace heddle::cuda
