// Forms of GemvKernel whose values are int8, and the choice among them.
#pragma once

#include "gemm/gemv_launch.cuh"
#include "gemm/gemv_x.cuh"
#include "quant/int8_sums.cuh"
#include "quant/marked_rows.h"

namespace heddle::cuda {

template <typename Units>
struct Int8Form {
  using T = typename Units::T;
  using X = XSlabs<kChunkUnits * Units::kColumns * 2, 32>;
  using Sums = Int8Sums<Units>;
  static constexpr int kMetadataUnits = Units::kMetadataUnits;
  static constexpr bool kScaled = true;
  static constexpr bool kTensorRing = true;
};

template <typename Units>
struct DigitForm {
  using T = typename Units::T;
  using X = DigitX<T, Units::kColumns>;
  using Sums = DigitSums<Units>;
  using Otherwise = Int8Form<Units>;
  static constexpr int kMetadataUnits = Units::kMetadataUnits;
  static constexpr bool kScaled = true;
  static constexpr bool kTensorRing = true;
};

template <typename Units>
struct QuantizedForm {
  using T = typename Units::T;
  using X = QuantizedX<T, Units::kColumns>;
  using Sums = QuantizedSums<Units>;
  static constexpr int kMetadataUnits = Units::kMetadataUnits;
  static constexpr bool kScaled = true;
  static constexpr bool kTensorRing = false;  // outliers need the room
};

// An op with x of 16 bits, by the forms of Units<T>.
template <template <typename> typename Units, typename Op>
void LaunchInt8Gemv(const HeddleCudaStream& stream, const Op& op, const HeddleCudaWeight& weight) {
  const auto launch = [&]<typename T>() {
    if (weight.x_quantization == kHeddleCudaKeepX) {
      LaunchGemv<DigitForm<Units<T>>>(stream, op);
    } else {
      using Form = QuantizedForm<Units<T>>;
      LaunchGemv<Form>(stream, op, [&](GemvArguments& arguments) {
        arguments.outlier_bits = OutlierBits(op.x.dtype, weight.outlier_threshold);
        if (!Form::X::QuantizesItself(arguments)) MarkRows(stream, op.x, arguments);
      });
    }
  };
  if (op.x.dtype == kHeddleCudaFloat16) return launch.template operator()<__half>();
  launch.template operator()<__nv_bfloat16>();
}

}  // namespace heddle::cuda
