// What a rank computes on.
#pragma once

#include "base/dtype.h"

namespace heddle {

enum class DeviceType { kCpu, kCuda };

constexpr const char* DeviceTypeName(DeviceType device) { return device == DeviceType::kCuda ? "cuda" : "cpu"; }

// The type of activations, of what goes into matrix products and comes out of them: docs/decisions.md.
constexpr DType ActivationDType(DeviceType device, DType weights) {
  return device == DeviceType::kCuda ? weights : DType::kFloat32;
}

}  // namespace heddle
