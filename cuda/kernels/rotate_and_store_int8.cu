// RotateAndStore into an int8 cache: a warp has a head of a key or value, whose largest magnitude its lanes find
// together; queries are rotated as ever, by blocks of their own.
#include "common/int8_cache.cuh"
#include "common/rounding.h"
#include "kernels/rotate_and_store.cuh"

namespace heddle::cuda {
namespace {

constexpr int kWarps = kRotateThreads / 32;
constexpr int kMaxHeadDim = 512;

// kSize neighbours, accessed at once.
template <typename T, int kSize>
struct alignas(kSize * sizeof(T)) Vector {
  T values[kSize];
};

// One element of a head by another, `sign` of whose sine it takes; where it is not rotated, `partner` is itself.
struct Place {
  __device__ __forceinline__ Place(int element, int half) {
    is_rotated = element < 2 * half;
    const bool is_first = element < half;
    angle = is_first ? element : element - half;
    partner = !is_rotated ? element : is_first ? element + half : element - half;
    sign = is_first ? -1.0f : 1.0f;
  }

  bool is_rotated;
  int angle;
  int partner;
  float sign;
};

// kVectors vectors of a head a lane, 32 vectors apart, of its one token.
template <typename T, int kSize, int kVectors>
class HeadOfWarp {
  using Elements = Vector<T, kSize>;
  using Floats = Vector<float, kSize>;

 public:
  // What says where the token lies, and its angles: no op writes them.
  struct Prepared {
    int64_t slot;
    Floats cosine[kVectors];
    Floats sine[kVectors];
  };

  // Values are not rotated: then `half` is zero.
  __device__ HeadOfWarp(const RotateArguments& a, int half) : a_(a), half_(half), lane_(threadIdx.x % 32) {}

  __device__ __forceinline__ Prepared Prepare(int64_t token) const {
    Prepared prepared;
    prepared.slot = a_.slot_mapping[token];
    if (half_ == 0 || !IsSlot(a_, prepared.slot)) return prepared;
    const float* const angles = AnglesOf(a_, token);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const Place place(ElementOf(i), half_);
      if (!place.is_rotated) continue;
      prepared.cosine[i] = *reinterpret_cast<const Floats*>(angles + place.angle);
      prepared.sine[i] = *reinterpret_cast<const Floats*>(angles + half_ + place.angle);
    }
    return prepared;
  }

  // Of the head that begins at `head`, into row `row` of `cached`.
  __device__ __forceinline__ void Store(const Prepared& prepared, T* head, void* cached, int64_t row) const {
    float x[kVectors][kSize];
    Rotate(prepared, head, x);
    const float magnitude = MagnitudeOf(x);
    constexpr float kLeast = 1e-30f;  // below, 1 / scale overflows
    const bool is_finite = magnitude <= 3.402823466e38f;
    const bool is_zero = !is_finite || magnitude < kLeast;
    const float scale = !is_finite ? __int_as_float(0x7fffffff) : is_zero ? 0.0f : __fdiv_rn(magnitude, 127.0f);
    const float inverse = is_zero ? 0.0f : __fdiv_rn(1.0f, scale);
    const Int8CacheRow place(row, a_.head_dim);
    auto* const bytes = static_cast<char*>(cached);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (ElementOf(i) >= a_.head_dim) continue;
      Vector<int8_t, kSize> rounded;
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        rounded.values[j] = static_cast<int8_t>(is_zero ? 0 : __float2int_rn(x[i][j] * inverse));
      }
      *reinterpret_cast<Vector<int8_t, kSize>*>(bytes + place.elements + ElementOf(i)) = rounded;
    }
    if (lane_ == 0) *reinterpret_cast<float*>(bytes + place.scale) = scale;
  }

 private:
  __device__ __forceinline__ int ElementOf(int vector) const { return (vector * 32 + lane_) * kSize; }

  // What is rotated is also left where it was, once every lane has read its partners.
  __device__ __forceinline__ void Rotate(const Prepared& prepared, T* head, float (&x)[kVectors][kSize]) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int element = ElementOf(i);
      const bool exists = element < a_.head_dim;
      const Place place(element, half_);
      const Elements own = exists ? *reinterpret_cast<const Elements*>(head + element) : Elements{};
      const Elements partner =
          exists && place.is_rotated ? *reinterpret_cast<const Elements*>(head + place.partner) : Elements{};
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        x[i][j] = ToFloat(own.values[j]);
        if (!place.is_rotated) continue;
        x[i][j] = x[i][j] * prepared.cosine[i].values[j] +
                  place.sign * ToFloat(partner.values[j]) * prepared.sine[i].values[j];
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int element = ElementOf(i);
      if (!Place(element, half_).is_rotated) continue;
      Elements rotated;
#pragma unroll
      for (int j = 0; j < kSize; ++j) rotated.values[j] = FromFloat<T>(x[i][j]);
      *reinterpret_cast<Elements*>(head + element) = rotated;
    }
  }

  // As bits, of which those of infinity and NaN are the largest.
  __device__ __forceinline__ static float MagnitudeOf(const float (&x)[kVectors][kSize]) {
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int j = 0; j < kSize; ++j) bits = max(bits, __float_as_uint(x[i][j]) & 0x7fffffffu);
    }
    return __uint_as_float(__reduce_max_sync(0xffffffffu, bits));
  }

  const RotateArguments& a_;
  const int half_;
  const int lane_;
};

// Blocks that have kSize pairs of a query a thread.
template <int kSize>
__host__ __device__ constexpr int QueryBlocks(const RotateArguments& a) {
  return static_cast<int>(CeilDiv(a.num_heads * (a.half / kSize), kRotateThreads));
}

template <typename T, int kQuerySize, int kSize, int kVectors>
__global__ void __launch_bounds__(kRotateThreads) RotateAndStoreInt8Kernel(const RotateArguments a) {
  AllowNext();
  const int query_blocks = QueryBlocks<kQuerySize>(a);
  const auto block = static_cast<int>(blockIdx.x);
  if (block < query_blocks) {
    const int unit = block * kRotateThreads + static_cast<int>(threadIdx.x);
    const int units_per_head = a.half / kQuerySize;
    if (unit >= a.num_heads * units_per_head) return;
    const int column = unit % units_per_head * kQuerySize;
    T* const rows = static_cast<T*>(a.q) + int64_t{unit / units_per_head} * a.head_dim + column;
    return ForMyTokens(
        a, [&](int64_t token) { return Rotation<kQuerySize>(a, token, column); },
        [&](int64_t token, const Rotation<kQuerySize>& rotation) {
          if (!IsSlot(a, rotation.slot)) return;
          float first[kQuerySize];
          float second[kQuerySize];
          RotatePairs(rows + token * a.q_stride, a.half, rotation, first, second);
        });
  }
  int head = (block - query_blocks) * kWarps + static_cast<int>(threadIdx.x / 32);
  if (head >= 2 * a.num_kv_heads) return;
  const bool is_key = head < a.num_kv_heads;
  if (!is_key) head -= a.num_kv_heads;
  using Head = HeadOfWarp<T, kSize, kVectors>;
  const Head warp(a, is_key ? a.half : 0);
  ForMyTokens(
      a, [&](int64_t token) { return warp.Prepare(token); },
      [&](int64_t token, const typename Head::Prepared& prepared) {
        if (!IsSlot(a, prepared.slot)) return;
        T* const x =
            static_cast<T*>(is_key ? a.k : const_cast<void*>(a.v)) + token * (is_key ? a.k_stride : a.v_stride);
        warp.Store(prepared, x + int64_t{head} * a.head_dim, is_key ? a.keys : a.values,
                   CacheRow(a, prepared.slot, head));
      });
}

template <typename T, int kQuerySize, int kSize, int kVectors>
void LaunchInt8(const HeddleCudaStream& stream, const RotateArguments& a) {
  const int num_columns = QueryBlocks<kQuerySize>(a) + static_cast<int>(CeilDiv(2 * a.num_kv_heads, kWarps));
  Launch(stream, RotateAndStoreInt8Kernel<T, kQuerySize, kSize, kVectors>, RotateGrid(a, num_columns),
         dim3(kRotateThreads), 0, a);
}

}  // namespace

void RotateAndStoreInt8(const HeddleCudaStream& stream, HeddleCudaDType dtype, bool vectors, const RotateArguments& a) {
  constexpr int kSize = 4;
  DispatchFloat(dtype, [&]<typename T>() {
    if (!vectors) return LaunchInt8<T, 1, 1, kMaxHeadDim / 32>(stream, a);
    if (a.head_dim <= 32 * kSize) return LaunchInt8<T, kVectorSize, kSize, 1>(stream, a);
    LaunchInt8<T, kVectorSize, kSize, kMaxHeadDim / (32 * kSize)>(stream, a);
  });
}

}  // namespace heddle::cuda
