#include "layers/weight_formats.h"

#include <algorithm>

#include "base/error.h"

namespace heddle {
namespace {

Quantization SchemeOf(const StoredQuantization& stored) {
  switch (stored.scheme) {
    case QuantizationScheme::kNone:
      return Quantization::kNone;
    case QuantizationScheme::kInt8:
      return Quantization::kInt8;
    case QuantizationScheme::kW8A8:
      return Quantization::kW8A8;
    case QuantizationScheme::kLlmInt8:
      return Quantization::kLlmInt8;
  }
  return Quantization::kNone;
}

}  // namespace

WeightFormats::WeightFormats(DType dtype, Quantization quantization, Sparsity sparsity, StoredQuantization stored,
                             Provider provider)
    : dtype_(dtype),
      quantization_(quantization == Quantization::kAuto ? SchemeOf(stored) : quantization),
      sparsity_(sparsity),
      stored_(std::move(stored)),
      provider_(provider) {
  if (sparsity_ == Sparsity::kAuto && !stored_.sparse_24) sparsity_ = Sparsity::kNone;
  if (sparsity_ == Sparsity::k24 && dtype == DType::kFloat32 && quantization_ == Quantization::kNone) {
    throw Error(ErrorCode::kInvalidArgument,
                "sparsity must be \"auto\" or \"none\" where weights are float32, received \"2:4\"");
  }
  if (provider_ == Provider::kHeddle) return;
  const auto refuse = [&](const std::string& where) {
    throw Error(ErrorCode::kInvalidArgument,
                "provider must be \"heddle\" " + where + ", received \"" + ProviderName(provider_) + "\"");
  };
  if (dtype == DType::kFloat32) refuse("with dtype \"float32\"");
  if (quantization_ != Quantization::kLlmInt8) {
    refuse(std::string("where quantization is \"") + QuantizationName(quantization_) + "\"");
  }
  if (sparsity_ != Sparsity::kNone) refuse("where matrices are 2:4 sparse");
}

MatrixFormat WeightFormats::Linear(const std::vector<std::string>& modules, int64_t columns, int64_t unit) const {
  const auto all = [&](const auto& property) { return std::all_of(modules.begin(), modules.end(), property); };
  MatrixFormat format{.dtype = dtype_};
  const bool stored_int8 = stored_.scheme != QuantizationScheme::kNone;
  const bool int8 = quantization_ != Quantization::kNone &&
                    (!stored_int8 || all([this](const std::string& module) { return stored_.IsQuantized(module); }));
  if (int8) {
    format.dtype = DType::kInt8;
    format.quantize_x = quantization_ != Quantization::kInt8;
    if (quantization_ == Quantization::kLlmInt8 && stored_.outlier_threshold > 0) {
      format.outlier_threshold = stored_.outlier_threshold;
    }
    format.provider = provider_;
  }
  const bool sparse =
      sparsity_ == Sparsity::k24 ||
      (sparsity_ == Sparsity::kAuto && all([this](const std::string& module) { return stored_.IsSparse(module); }));
  format.sparse = sparse && format.dtype != DType::kFloat32 && columns % kSparseUnit == 0 && unit % kSparseUnit == 0;
  return format;
}

MatrixFormat WeightFormats::Head(const std::string& module) const {
  const bool stored_int8 = stored_.scheme != QuantizationScheme::kNone;
  const bool int8 = quantization_ != Quantization::kNone && (!stored_int8 || stored_.IsQuantized(module));
  return {.dtype = int8 ? DType::kInt8 : dtype_};
}

std::string WeightFormats::Name() const {
  std::string name = DTypeName(dtype_);
  if (quantization_ != Quantization::kNone) name += std::string("-") + QuantizationName(quantization_);
  if (sparsity_ == Sparsity::k24) name += "-2of4";
  if (sparsity_ == Sparsity::kAuto) name += "-stored-2of4";
  return name;
}

}  // namespace heddle
