// Prefill without tensor cores, for any types and sizes: each warp computes four rows of a tile. A lane has one key of
// 32 when scores are computed, and pairs of the head's elements when values are added up.
#include <type_traits>

#include "attention/prefill.h"
#include "attention/prefill_softmax.cuh"
#include "attention/prefill_tiles.cuh"
#include "common/launch.h"

namespace heddle::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kRowsPerWarp = 4;
constexpr int kRows = kRowsPerWarp * kWarps;
constexpr int kKeys = 32;

// Floats of a row in shared memory: lanes that read one column of 32 rows, a pair each, meet different banks.
__host__ __device__ constexpr int Pitch(int head_dim) { return head_dim + 2; }

constexpr size_t SharedBytes(int head_dim) {
  return sizeof(float) * ((kRows + kKeys) * Pitch(head_dim) + kRows * kKeys);
}

template <typename T>
struct alignas(2 * sizeof(T)) Pair {
  T first;
  T second;
};

// The rows of a warp; head_dim is at most 64 * kPairs.
template <typename T, typename C, int kPairs>
class GenericWarp {
 public:
  __device__ GenericWarp(const AttentionParameters& p, const PrefillTile& tile, float* shared)
      : p_(p),
        tile_(tile),
        lane_(threadIdx.x % 32),
        pitch_(Pitch(p.head_dim)),
        first_row_(tile.first_row + static_cast<int>(threadIdx.x / 32) * kRowsPerWarp),
        queries_(shared + threadIdx.x / 32 * kRowsPerWarp * pitch_),
        cached_(shared + kRows * pitch_),
        weights_(cached_ + kKeys * pitch_ + threadIdx.x / 32 * kRowsPerWarp * kKeys) {}

  __device__ void Run() {
    LoadQueries();
    for (int first_key = tile_.key_begin / kKeys * kKeys; first_key < tile_.key_end; first_key += kKeys) {
      __syncthreads();  // nobody reads the values before any more
      LoadCached(p_.keys, first_key);
      __syncthreads();
      Weigh(first_key);
      __syncthreads();
      LoadCached(p_.values, first_key);
      __syncthreads();
      AddValues();
    }
    Store();
  }

 private:
  __device__ bool HasRow(int r) const { return first_row_ + r < tile_.end_row; }

  // As floats, times `scale`, to shared memory.
  template <typename Element>
  __device__ void LoadRow(float* to, const Element* from, float scale) const {
    for (int i = lane_; i < p_.head_dim / 2; i += 32) {
      const Pair<Element> pair = reinterpret_cast<const Pair<Element>*>(from)[i];
      *reinterpret_cast<float2*>(to + 2 * i) = make_float2(ToFloat(pair.first) * scale, ToFloat(pair.second) * scale);
    }
  }

  __device__ void LoadQueries() const {
    for (int r = 0; r < kRowsPerWarp && HasRow(r); ++r) {
      LoadRow(queries_ + r * pitch_, static_cast<const T*>(p_.q) + RowOffset(p_, tile_, first_row_ + r, p_.q_stride),
              1);
    }
  }

  // The block's warps together. Keys that no row of the tile sees are left out: nobody uses what lies in their place.
  __device__ void LoadCached(const void* cached, int first_key) const {
    const int32_t* table = p_.block_table + tile_.seq * p_.block_table_stride;
    const int end = min(kKeys, tile_.key_end - first_key);
    for (int i = threadIdx.x / 32; i < end; i += kWarps) {
      const int key = first_key + i;
      if (key < tile_.key_begin) continue;
      const int in_block = key & ((1 << p_.block_shift) - 1);
      const int64_t row = CacheRow(p_, table[key >> p_.block_shift], tile_.kv_head, in_block);
      float* const to = cached_ + i * pitch_;
      if constexpr (std::is_same_v<C, int8_t>) {
        const Int8CacheRow place(row, p_.head_dim);
        const auto* const bytes = static_cast<const char*>(cached);
        LoadRow(to, reinterpret_cast<const C*>(bytes + place.elements),
                *reinterpret_cast<const float*>(bytes + place.scale));
      } else {
        LoadRow(to, static_cast<const C*>(cached) + row * p_.head_dim, 1);
      }
    }
  }

  // The lane's key for each row: its weight, and with it the row's largest score and sum.
  __device__ void Weigh(int first_key) {
    float dots[kRowsPerWarp] = {};
    for (int i = 0; i < p_.head_dim; i += 2) {
      const float2 key = *reinterpret_cast<const float2*>(cached_ + lane_ * pitch_ + i);
#pragma unroll
      for (int r = 0; r < kRowsPerWarp; ++r) {
        const float2 query = *reinterpret_cast<const float2*>(queries_ + r * pitch_ + i);
        dots[r] = fmaf(query.x, key.x, fmaf(query.y, key.y, dots[r]));
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) {
      if (!HasRow(r)) continue;
      const int position = tile_.context + (first_row_ + r) / p_.group_size;
      const int key = first_key + lane_;
      const bool visible = key <= position && key >= KeyBegin(position, p_.sliding_window);
      const float x = dots[r] * p_.score.factor;
      const float score = !visible ? kMinusInfinity : p_.score.cap == 0 ? x : p_.score.cap * tanhf(x);
      const float max = fmaxf(max_[r], WarpMax(score));
      // A row that has seen no key yet: minus infinity less itself would be NaN.
      const float subtrahend = max == kMinusInfinity ? 0.0f : max;
      const float rescale = exp2f(max_[r] - subtrahend);
      const float weight = exp2f(score - subtrahend);
      sum_[r] = sum_[r] * rescale + weight;
      max_[r] = max;
      weights_[r * kKeys + lane_] = weight;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        out_[r][i].x *= rescale;
        out_[r][i].y *= rescale;
      }
    }
    __syncwarp();
  }

  // A weight of zero adds nothing, not even zero times NaN.
  __device__ void AddValues() {
    for (int key = 0; key < kKeys; ++key) {
#pragma unroll
      for (int r = 0; r < kRowsPerWarp; ++r) {
        const float weight = HasRow(r) ? weights_[r * kKeys + key] : 0.0f;
        if (weight == 0) continue;
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          const int element = 2 * (lane_ + 32 * i);
          if (element >= p_.head_dim) continue;
          const float2 value = *reinterpret_cast<const float2*>(cached_ + key * pitch_ + element);
          out_[r][i].x = fmaf(weight, value.x, out_[r][i].x);
          out_[r][i].y = fmaf(weight, value.y, out_[r][i].y);
        }
      }
    }
  }

  __device__ void Store() const {
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) {
      if (!HasRow(r)) continue;
      const float factor = 1.0f / WarpSum(sum_[r]);
      T* out = static_cast<T*>(p_.out) + RowOffset(p_, tile_, first_row_ + r, p_.out_stride);
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int element = 2 * (lane_ + 32 * i);
        if (element >= p_.head_dim) continue;
        reinterpret_cast<Pair<T>*>(out)[element / 2] = {FromFloat<T>(out_[r][i].x * factor),
                                                        FromFloat<T>(out_[r][i].y * factor)};
      }
    }
  }

  const AttentionParameters& p_;
  const PrefillTile& tile_;
  const int lane_;
  const int pitch_;
  const int first_row_;
  float* const queries_;  // the warp's [kRowsPerWarp, pitch]
  float* const cached_;   // [kKeys, pitch]: keys, then values
  float* const weights_;  // the warp's [kRowsPerWarp, kKeys]
  float max_[kRowsPerWarp] = {kMinusInfinity, kMinusInfinity, kMinusInfinity, kMinusInfinity};
  float sum_[kRowsPerWarp] = {};  // over the lane's keys
  float2 out_[kRowsPerWarp][kPairs] = {};
};

template <typename T, typename C, int kPairs>
__global__ void __launch_bounds__(kThreads) PrefillGenericKernel(const __grid_constant__ AttentionParameters p) {
  extern __shared__ __align__(16) float shared_floats[];
  AllowNext();
  WaitForPrevious();
  const PrefillTile tile = PrefillTileFinder(p, kRows).Find(blockIdx.x);
  if (tile.is_empty()) return;
  GenericWarp<T, C, kPairs>(p, tile, shared_floats).Run();
}

}  // namespace

void PrefillGeneric(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  const size_t shared_bytes = SharedBytes(op.cache.head_dim);
  const int64_t blocks = MaxPrefillTiles(op, kRows) * op.cache.num_kv_heads;
  DispatchFloat(op.q.dtype, [&]<typename T>() {
    DispatchCache(op.cache.dtype, [&]<typename C>() {
      const auto kernel = op.cache.head_dim <= 128 ? PrefillGenericKernel<T, C, 2> : PrefillGenericKernel<T, C, 8>;
      AllowShared(kernel, shared_bytes);
      Launch(stream, kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), shared_bytes,
             MakeAttentionParameters(op));
    });
  });
}

}  // namespace heddle::cuda
