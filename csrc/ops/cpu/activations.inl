// The activations of gated layers, a vector at a time.

namespace heddle::ops::cpu::HEDDLE_ISA {

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

}  // namespace heddle::ops::cpu::HEDDLE_ISA
