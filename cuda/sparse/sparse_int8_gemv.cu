#include "quant/int8_forms.cuh"
#include "sparse/sparse_gemv.h"
#include "sparse/sparse_int8_units.cuh"

namespace heddle::cuda {

void SparseInt8Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  LaunchInt8Gemv<SparseInt8Units>(stream, op, op.weight);
}

void SparseInt8Gemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  LaunchInt8Gemv<SparseInt8Units>(stream, op, op.gate_up);
}

}  // namespace heddle::cuda
