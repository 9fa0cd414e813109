// Kernels whose every output depends on one or two inputs at the same place.

namespace heddle::ops::cpu::HEDDLE_ISA {

void AddRow(const float* x, float* y, int64_t size) {
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    StorePartial(y + i, Add(LoadPartial(y + i, count), LoadPartial(x + i, count)), count);
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

float NarrowRowToInt8(const float* source, int64_t size, void* destination, int64_t stride) {
  I32x16 max = ZeroInt32();
  for (int64_t i = 0; i < size; i += 16) max = MaxMagnitudeBits(max, LoadPartial(source + i, LanesAt(i, size)));
  const int32_t bits = MaxLane(max);
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof(magnitude));
  constexpr float kLeast = 1e-30f;  // below, 1 / scale overflows
  const bool finite = magnitude <= __FLT_MAX__;
  const bool zeros = !finite || magnitude < kLeast;
  const float scale = !finite ? __builtin_nanf("") : zeros ? 0 : magnitude / 127.0f;
  const F32x16 inverse = Set1(zeros ? 0 : 1.0f / scale);
  char* narrow = static_cast<char*>(destination);
  for (int64_t i = 0; i < size; i += 16) {
    const int count = LanesAt(i, size);
    char lanes[16];
    StoreInt8(lanes, zeros ? Zero() : Mul(LoadPartial(source + i, count), inverse));
    for (int lane = 0; lane < count; ++lane) narrow[(i + lane) * stride] = lanes[lane];
  }
  return scale;
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
