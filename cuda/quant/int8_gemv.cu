#include "quant/int8_gemv.h"

#include "quant/int8_forms.cuh"

namespace heddle::cuda {

void Int8Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  LaunchInt8Gemv<DenseInt8Units>(stream, op, op.weight);
}

void Int8Gemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  LaunchInt8Gemv<DenseInt8Units>(stream, op, op.gate_up);
}

}  // namespace heddle::cuda
