// Kernels that reduce a row: 16 partial results, element i in lane i mod 16, joined by the tree of ReduceAdd.

namespace heddle::ops::cpu::HEDDLE_ISA {

void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t size, float* y) {
  F32x16 squares = Zero();
  for (int64_t i = 0; i < size; i += 16) {
    const F32x16 value = LoadPartial(x + i, LanesAt(i, size));
    squares = Fma(value, value, squares);
  }
  const float mean = ReduceAdd(squares) / static_cast<float>(size);
  const F32x16 scale = Set1(1.0f / __builtin_sqrtf(mean + epsilon));
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    StorePartial(y + i, Mul(Mul(LoadPartial(x + i, count), scale), LoadPartial(weight + i, count)), count);
  }
}

// 16 elements from i on, or what is left of them and -infinity.
inline F32x16 LoadOrLowest(const float* row, int64_t i, int64_t size) {
  const int count = LanesAt(i, size);
  return count == 16 ? Load(row + i) : KeepLanes(LoadPartial(row + i, count), 0, count, -__builtin_inff());
}

// The largest element, NaNs apart; `has_nan` tells whether there are any.
inline float MaxOf(const float* row, int64_t size, bool* has_nan) {
  F32x16 max = Set1(-__builtin_inff());
  uint32_t numbers = 0xffff;
  for (int64_t i = 0; i < size; i += 16) {
    const F32x16 value = LoadOrLowest(row, i, size);
    numbers &= EqualLanes(value, value);
    max = Max(value, max);
  }
  *has_nan = numbers != 0xffff;
  return ReduceMax(max);
}

int64_t ArgMaxRow(const float* row, int64_t size) {
  bool has_nan;
  const F32x16 max = Set1(MaxOf(row, size, &has_nan));
  for (int64_t i = 0; i < size; i += 16) {
    const F32x16 value = LoadOrLowest(row, i, size);
    const uint32_t lanes = has_nan ? ~EqualLanes(value, value) & 0xffff : EqualLanes(value, max);
    if (lanes != 0) return i + __builtin_ctz(lanes);
  }
  return 0;
}

float LogSumExpRow(const float* row, int64_t size) {
  bool has_nan;
  const float max = MaxOf(row, size, &has_nan);
  if (has_nan) return __builtin_nanf("");
  if (__builtin_isinf(max)) return max;
  F32x16 sum = Zero();
  for (int64_t i = 0; i < size; i += 16) sum = Add(sum, Exp(Sub(LoadOrLowest(row, i, size), Set1(max))));
  return max + __builtin_logf(ReduceAdd(sum));
}

float ExpAndSumRow(float max, float* row, int64_t size) {
  F32x16 sum = Zero();
  for (int64_t i = 0; i < size; i += 16) {
    const F32x16 value = Exp(Sub(LoadOrLowest(row, i, size), Set1(max)));
    sum = Add(sum, value);
    StorePartial(row + i, value, LanesAt(i, size));
  }
  return ReduceAdd(sum);
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
