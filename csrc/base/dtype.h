// Element types and the two 16-bit float formats, with conversions that round to nearest even.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace heddle {

enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16, kInt8, kInt32, kInt64 };

constexpr size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kInt8:
      return 1;
    case DType::kInt64:
      return 8;
  }
  return 0;
}

constexpr const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kInt8:
      return "int8";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
  }
  return "unknown";
}

inline float BFloat16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);  // keep NaN a NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float Float16ToFloat(uint16_t bits);
uint16_t FloatToFloat16(float value);

// Element i of an array of a float dtype, widened; and the same, rounded.
inline float LoadFloat(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::kBFloat16:
      return BFloat16ToFloat(static_cast<const uint16_t*>(data)[i]);
    case DType::kFloat16:
      return Float16ToFloat(static_cast<const uint16_t*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

inline void StoreFloat(DType dtype, void* data, int64_t i, float value) {
  switch (dtype) {
    case DType::kBFloat16:
      static_cast<uint16_t*>(data)[i] = FloatToBFloat16(value);
      break;
    case DType::kFloat16:
      static_cast<uint16_t*>(data)[i] = FloatToFloat16(value);
      break;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

// The value of the float dtype that is nearest to `value`.
inline float Rounded(DType dtype, float value) {
  uint32_t memory = 0;
  StoreFloat(dtype, &memory, 0, value);
  return LoadFloat(dtype, &memory, 0);
}

}  // namespace heddle
