// How layers bring stored weights into memory: in strips of a few rows, on all of the rank's threads. Beside the result
// there is one strip a thread, never a whole matrix.
//
// On the rank's thread. All fail as StoredTensor::Read does; those that take a context also with kCancelled, between
// two strips.
#pragma once

#include <string>

#include "layers/context.h"
#include "ops/packed_matrix.h"

namespace heddle {

// Makes `matrix` what the cache has under this name, if it has it; otherwise its rows are to be packed. REQUIRES: each
// matrix of a model has a name of its own.
bool Restore(const BuildContext& context, const std::string& name, PackedMatrix& matrix);

// Packs the block rows x columns of `stored` into `destination` from row `at`.
void PackRows(const BuildContext& context, const StoredTensor& stored, Range rows, Range columns, int64_t at,
              PackedMatrix& destination);

// The rows in their stored form, from the cache if that has them under this name.
Tensor LoadRows(const BuildContext& context, const std::string& name, const StoredTensor& stored, Range rows);

// A small float vector of the checkpoint, widened to float32, with `offset` added.
Tensor LoadVector(WeightSource& weights, const std::string& name, int64_t size, float offset = 0.0f);

}  // namespace heddle
