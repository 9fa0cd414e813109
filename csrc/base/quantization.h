// What an engine may be asked to do with its weights.
#pragma once

namespace heddle {

// How products with the matrices of linear layers are computed.
enum class Quantization {
  kAuto,     // as the checkpoint's authors mean it
  kNone,     // in the float type: int8 weights are widened at load
  kInt8,     // int8 weights, activations as they are
  kLlmInt8,  // int8 weights and activations, outliers of the activations as they are
  kW8A8,     // int8 weights and activations
};

constexpr const char* QuantizationName(Quantization quantization) {
  switch (quantization) {
    case Quantization::kAuto:
      return "auto";
    case Quantization::kNone:
      return "none";
    case Quantization::kInt8:
      return "int8";
    case Quantization::kLlmInt8:
      return "llm-int8";
    case Quantization::kW8A8:
      return "w8a8";
  }
  return "unknown";
}

// Whose kernels compute LLM.int8 products on GPUs.
enum class Provider { kHeddle, kBitsAndBytes };

constexpr const char* ProviderName(Provider provider) {
  return provider == Provider::kHeddle ? "heddle" : "bitsandbytes";
}

// Which matrices of linear layers are kept as the two values of each four that are not zero.
enum class Sparsity {
  kAuto,  // those that the checkpoint stores so
  kNone,
  k24,  // all
};

}  // namespace heddle
