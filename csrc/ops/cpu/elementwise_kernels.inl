// Kernels whose every output depends on one or two inputs at the same place.

namespace heddle::ops::cpu::HEDDLE_ISA {

void AddRow(const float* x, float* y, int64_t size) {
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    StorePartial(y + i, Add(LoadPartial(y + i, count), LoadPartial(x + i, count)), count);
  }
}

// x / (1 + e^-x).
inline F32x16 Silu(F32x16 x) { return Div(x, Add(Set1(1.0f), Exp(Sub(Zero(), x)))); }

// 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + e^-2u).
inline F32x16 GeluTanh(F32x16 x) {
  const F32x16 cubic = Fma(Mul(Mul(x, x), x), Set1(0.044715f), x);
  return Div(x, Add(Set1(1.0f), Exp(Mul(cubic, Set1(-1.59576912160573f)))));
}

// erfc(z) for z >= 0, relative error 1e-6 up to z = 4: t e^(P(t) - z^2) with t = 1 / (1 + z / 2), where P is a minimax
// polynomial for log(erfc(z) / t) + z^2.
inline F32x16 Erfc(F32x16 z) {
  const F32x16 t = Div(Set1(1.0f), Fma(z, Set1(0.5f), Set1(1.0f)));
  F32x16 p = Set1(0.138102663f);
  p = Fma(p, t, Set1(-0.64353982f));
  p = Fma(p, t, Set1(1.06876711f));
  p = Fma(p, t, Set1(-0.578926051f));
  p = Fma(p, t, Set1(-0.177471793f));
  p = Fma(p, t, Set1(0.0529514839f));
  p = Fma(p, t, Set1(0.0170210872f));
  p = Fma(p, t, Set1(0.390317135f));
  p = Fma(p, t, Set1(0.9982052f));
  p = Fma(p, t, Set1(-1.26542698f));
  return Mul(t, Exp(Sub(p, Mul(z, z))));
}

// x Phi(x), as max(x, 0) - |x| / 2 erfc(|x| / sqrt(2)): no cancellation on either side of zero. Beyond |x| = 16 the
// second term is zero, and the clamp keeps infinities from meeting it.
inline F32x16 Gelu(F32x16 x) {
  const F32x16 magnitude = Min(Set1(16.0f), Max(Sub(Zero(), x), x));
  const F32x16 tail = Mul(Mul(magnitude, Set1(0.5f)), Erfc(Mul(magnitude, Set1(0.707106781186548f))));
  return Sub(Max(Zero(), x), tail);
}

template <F32x16 (*kActivation)(F32x16)>
inline void GatedRow(const float* gate, const float* up, int64_t size, float* y) {
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    StorePartial(y + i, Mul(kActivation(LoadPartial(gate + i, count)), LoadPartial(up + i, count)), count);
  }
}

void GatedActivationRow(GatedKind kind, const float* gate, const float* up, int64_t size, float* y) {
  switch (kind) {
    case GatedKind::kSilu:
      return GatedRow<Silu>(gate, up, size, y);
    case GatedKind::kGeluTanh:
      return GatedRow<GeluTanh>(gate, up, size, y);
    case GatedKind::kGelu:
      return GatedRow<Gelu>(gate, up, size, y);
  }
}

void SoftCapRow(float cap, float* x, int64_t size) {
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    const F32x16 value = LoadPartial(x + i, count);
    StorePartial(x + i, Mul(Tanh(Div(value, Set1(cap))), Set1(cap)), count);
  }
}

void RotateHead(const float* cos, const float* sin, int64_t half, float* head) {
  for (int64_t i = 0; i < half; i += 16) {
    const int count = LanesAt(i, half);
    const F32x16 c = LoadPartial(cos + i, count);
    const F32x16 s = LoadPartial(sin + i, count);
    const F32x16 first = LoadPartial(head + i, count);
    const F32x16 second = LoadPartial(head + half + i, count);
    StorePartial(head + i, Sub(Mul(first, c), Mul(second, s)), count);
    StorePartial(head + half + i, Add(Mul(second, c), Mul(first, s)), count);
  }
}

// Elements i to i + count of what is stored, widened; zero beyond.
inline F32x16 LoadStored(Storage storage, const void* source, int64_t i, int count) {
  if (storage == Storage::kFloat32) return LoadPartial(static_cast<const float*>(source) + i, count);
  uint16_t lanes[16] = {};
  std::memcpy(lanes, static_cast<const uint16_t*>(source) + i, static_cast<size_t>(count) * sizeof(uint16_t));
  return storage == Storage::kBFloat16 ? LoadBFloat16(lanes) : LoadFloat16(lanes);
}

void WidenRow(Storage storage, const void* source, int64_t size, float scale, float* y) {
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    StorePartial(y + i, Add(Mul(LoadStored(storage, source, i, count), Set1(scale)), Zero()), count);
  }
}

void NarrowRow(Storage storage, const float* source, int64_t size, void* destination, int64_t stride) {
  if (storage == Storage::kFloat32) {
    for (int64_t i = 0; i < size; ++i) static_cast<float*>(destination)[i * stride] = source[i];
    return;
  }
  uint16_t* narrow = static_cast<uint16_t*>(destination);
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    const F32x16 value = LoadPartial(source + i, count);
    uint16_t lanes[16];
    storage == Storage::kBFloat16 ? StoreBFloat16(lanes, value) : StoreFloat16(lanes, value);
    for (int lane = 0; lane < count; ++lane) narrow[(i + lane) * stride] = lanes[lane];
  }
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
