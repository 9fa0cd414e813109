// How layers bring stored weights into memory, the host's or the device's: in strips of a few rows, on all of the
// rank's threads. Beside the result there are a few strips a thread, never a whole matrix.
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

// Packs the block rows x columns of the tensor `name`, which is `stored`, into `destination` from row `at`. Fails as
// ReadMatrixRows does.
void PackRows(const BuildContext& context, const std::string& name, const StoredTensor& stored, Range rows,
              Range columns, int64_t at, PackedMatrix& destination);

// The rows in their stored form, from the cache if that has them under this name. On CPU only.
Tensor LoadRows(const BuildContext& context, const std::string& name, const StoredTensor& stored, Range rows);

// A small float vector of the checkpoint, widened to float32, with `offset` added: in host memory, and where ops read
// it.
Tensor ReadVector(WeightSource& weights, const std::string& name, int64_t size, float offset = 0.0f);
Tensor LoadVector(const BuildContext& context, const std::string& name, int64_t size, float offset = 0.0f);

// A copy of host memory where ops read it: the tensor itself on CPU.
Tensor ToDevice(const BuildContext& context, const Tensor& tensor);

}  // namespace heddle
