#include "comm/one_shot_all_reduce.h"

#include <algorithm>
#include <string>

#include "comm/peer_exchange.cuh"
#include "common/checks.h"
#include "common/launch.h"
#include "common/numeric.cuh"

namespace heddle::cuda {
namespace {

constexpr int kSumThreads = 256;
constexpr int kNormThreads = 512;
constexpr int kStaticSharedBytes = 1024;  // at most, beside the row

// The `valid` elements from `data` on, at most a pack of them, and zeros.
template <typename T>
__device__ __forceinline__ uint4 LoadPack(const T* data, int valid) {
  Pack<T> pack;
  if (valid >= Pack<T>::kSize) {
    pack = *reinterpret_cast<const Pack<T>*>(data);
  } else {
#pragma unroll
    for (int i = 0; i < Pack<T>::kSize; ++i) pack.values[i] = i < valid ? data[i] : FromFloat<T>(0);
  }
  return reinterpret_cast<const uint4&>(pack);
}

template <typename T>
__device__ __forceinline__ void StorePack(T* data, int valid, const float (&values)[Pack<T>::kSize]) {
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < Pack<T>::kSize; ++i) pack.values[i] = FromFloat<T>(values[i]);
  if (valid >= Pack<T>::kSize) {
    *reinterpret_cast<Pack<T>*>(data) = pack;
  } else {
#pragma unroll
    for (int i = 0; i < Pack<T>::kSize; ++i) {
      if (i < valid) data[i] = pack.values[i];
    }
  }
}

template <int kCount>
__device__ __forceinline__ void LoadFloats(const float* data, int valid, float (&values)[kCount]) {
  if (valid >= kCount) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 quad = *reinterpret_cast<const float4*>(data + i);
      values[i] = quad.x;
      values[i + 1] = quad.y;
      values[i + 2] = quad.z;
      values[i + 3] = quad.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = i < valid ? data[i] : 0.0f;
  }
}

template <int kCount>
__device__ __forceinline__ void StoreFloats(float* data, int valid, const float (&values)[kCount]) {
  if (valid >= kCount) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      *reinterpret_cast<float4*>(data + i) = {values[i], values[i + 1], values[i + 2], values[i + 3]};
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < valid) data[i] = values[i];
    }
  }
}

// The ranks' parts of element `i` joined in a balanced binary tree.
template <typename T, int kSize>
__device__ __forceinline__ float SumTree(const uint4 (&parts)[kSize], int i) {
  float sums[kSize];
#pragma unroll
  for (int rank = 0; rank < kSize; ++rank) {
    sums[rank] = ToFloat(reinterpret_cast<const Pack<T>&>(parts[rank]).values[i]);
  }
#pragma unroll
  for (int step = 1; step < kSize; step *= 2) {
#pragma unroll
    for (int rank = 0; rank < kSize; rank += 2 * step) sums[rank] += sums[rank + step];
  }
  return sums[0];
}

template <typename T, int kSize>
__global__ void __launch_bounds__(kSumThreads)
    OneShotSumKernel(const __grid_constant__ PeerView view, T* x, int count) {
  constexpr int kPack = Pack<T>::kSize;
  if (view.owns_device) AllowNext();
  WaitForPrevious();

  PeerExchange<kSize> exchange(view);
  const int num_packs = (count + kPack - 1) / kPack;
  const int first = static_cast<int>(blockIdx.x * kSumThreads + threadIdx.x);
  const int step = static_cast<int>(gridDim.x) * kSumThreads;
  for (int pack = first; pack < num_packs; pack += step) {
    exchange.Send(pack, LoadPack(x + pack * kPack, count - pack * kPack));
  }
  for (int pack = first; pack < num_packs; pack += step) {
    uint4 parts[kSize];
    exchange.Receive(pack, parts);
    float sums[kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) sums[i] = SumTree<T>(parts, i);
    StorePack(x + pack * kPack, count - pack * kPack, sums);
  }
  exchange.End();
}

template <typename T>
struct AddRmsNormRows {
  const T* x;
  float* residual;
  const float* weight;
  T* y;
  int64_t x_stride;
  int64_t residual_stride;
  int64_t y_stride;
  int num_rows;
  int size;
  float epsilon;
};

// A block normalises whole rows, which it keeps in shared memory meanwhile.
template <typename T, int kSize>
__global__ void __launch_bounds__(kNormThreads, 1)
    OneShotAddRmsNormKernel(const __grid_constant__ PeerView view, const __grid_constant__ AddRmsNormRows<T> op) {
  constexpr int kPack = Pack<T>::kSize;
  extern __shared__ float4 row_memory[];
  __shared__ float warp_sums[32];
  auto* row_values = reinterpret_cast<float*>(row_memory);
  const int num_packs = (op.size + kPack - 1) / kPack;
  const int num_threads = static_cast<int>(blockDim.x);
  const int num_blocks = static_cast<int>(gridDim.x);
  const int first_pack = static_cast<int>(threadIdx.x);
  const int first_row = static_cast<int>(blockIdx.x);

  if (view.owns_device) AllowNext();
  // Everything else here is in the cache; the weight has been driven out of it since the last step. A thread keeps that
  // of its first pack, which is its only one unless rows are long.
  float first_weights[kPack];
  LoadFloats(op.weight + first_pack * kPack, op.size - first_pack * kPack, first_weights);
  for (int pack = first_pack + num_threads; pack < num_packs; pack += num_threads) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(op.weight + pack * kPack));
  }
  WaitForPrevious();

  PeerExchange<kSize> exchange(view);
  for (int row = first_row; row < op.num_rows; row += num_blocks) {
    for (int pack = first_pack; pack < num_packs; pack += num_threads) {
      const int column = pack * kPack;
      exchange.Send(row * num_packs + pack, LoadPack(op.x + row * op.x_stride + column, op.size - column));
    }
  }
  for (int row = first_row; row < op.num_rows; row += num_blocks) {
    float squares = 0;
    for (int pack = first_pack; pack < num_packs; pack += num_threads) {
      const int column = pack * kPack;
      float* residual = op.residual + row * op.residual_stride + column;
      float values[kPack];
      LoadFloats(residual, op.size - column, values);
      uint4 parts[kSize];
      exchange.Receive(row * num_packs + pack, parts);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        values[i] += SumTree<T>(parts, i);
        squares += values[i] * values[i];
      }
      StoreFloats(residual, op.size - column, values);
      StoreFloats(row_values + column, kPack, values);
    }
    const float scale = rsqrtf(BlockSum(squares, warp_sums) / static_cast<float>(op.size) + op.epsilon);
    // All of the block's threads have received what they wait for.
    if (row + num_blocks >= op.num_rows) AllowNext();
    for (int pack = first_pack; pack < num_packs; pack += num_threads) {
      const int column = pack * kPack;
      float values[kPack];
      float weights[kPack];
      LoadFloats(row_values + column, kPack, values);
      if (pack != first_pack) LoadFloats(op.weight + column, op.size - column, weights);
#pragma unroll
      for (int i = 0; i < kPack; ++i) values[i] *= scale * (pack == first_pack ? first_weights[i] : weights[i]);
      StorePack(op.y + row * op.y_stride + column, op.size - column, values);
    }
  }
  exchange.End();
}

// Calls body.operator()<size>().
template <typename Body>
void DispatchSize(int size, const Body& body) {
  switch (size) {
    case 2:
      return body.template operator()<2>();
    case 4:
      return body.template operator()<4>();
    default:
      return body.template operator()<8>();
  }
}

void RequireRank(const HeddleCudaStream& stream, const HeddleCudaPeerGroup& group, int rank) {
  Require(rank >= 0 && rank < group.size(), "a one-shot all-reduce of a rank that the group has not");
  Require(stream.properties.device == group.device(rank), "a one-shot all-reduce on a stream of another rank's device");
  group.CheckAlive();
}

void RequireRoom(const HeddleCudaPeerGroup& group, int64_t num_packs) {
  if (num_packs * 16 <= group.max_bytes()) return;
  Fail(kHeddleCudaInvalid, "a one-shot all-reduce of " + std::to_string(num_packs * 16) + " bytes, of at most " +
                               std::to_string(group.max_bytes()));
}

}  // namespace

void OneShotAllReduceSum(HeddleCudaStream& stream, HeddleCudaPeerGroup& group, int rank, const HeddleCudaMatrix& x) {
  RequireRank(stream, group, rank);
  CheckMatrix(x, "one_shot_all_reduce_sum: x");
  Require(x.num_rows <= 1 || x.stride == x.size, "one_shot_all_reduce_sum: x has gaps between rows");
  Require(IsAligned(x.data), "one_shot_all_reduce_sum: x does not begin on 16 bytes");
  if (IsEmpty(x)) return;
  const int64_t count = x.num_rows * x.size;
  DispatchFloat(x.dtype, [&]<typename T>() {
    const int64_t num_packs = (count + Pack<T>::kSize - 1) / Pack<T>::kSize;
    RequireRoom(group, num_packs);
    const int64_t num_blocks = std::min<int64_t>(group.max_blocks(rank), (num_packs + kSumThreads - 1) / kSumThreads);
    DispatchSize(group.size(), [&]<int kSize>() {
      Launch(stream, OneShotSumKernel<T, kSize>, dim3(static_cast<unsigned>(num_blocks)), dim3(kSumThreads), 0,
             group.ViewOf(rank), static_cast<T*>(x.data), static_cast<int>(count));
    });
  });
}

void OneShotAllReduceAddRmsNorm(HeddleCudaStream& stream, HeddleCudaPeerGroup& group, int rank,
                                const HeddleCudaAddRmsNorm& op) {
  RequireRank(stream, group, rank);
  const HeddleCudaMatrix& x = op.x;
  CheckMatrix(x, "one_shot_all_reduce_add_rms_norm: x");
  CheckMatrix(op.residual, "one_shot_all_reduce_add_rms_norm: residual");
  CheckMatrix(op.y, "one_shot_all_reduce_add_rms_norm: y");
  Require(op.residual.dtype == kHeddleCudaFloat32 && op.residual.num_rows == x.num_rows && op.residual.size == x.size,
          "one_shot_all_reduce_add_rms_norm: the residual is not float32 of the shape of x");
  Require(op.y.dtype == x.dtype && op.y.num_rows == x.num_rows && op.y.size == x.size,
          "one_shot_all_reduce_add_rms_norm: y is not of the shape and type of x");
  Require(HasAlignedRows(x) && HasAlignedRows(op.residual) && HasAlignedRows(op.y) && IsAligned(op.weight),
          "one_shot_all_reduce_add_rms_norm: rows or weight do not begin on 16 bytes");
  if (IsEmpty(x)) return;
  Require(op.weight != nullptr, "one_shot_all_reduce_add_rms_norm: weight is null");
  DispatchFloat(x.dtype, [&]<typename T>() {
    const int64_t row_packs = (x.size + Pack<T>::kSize - 1) / Pack<T>::kSize;
    RequireRoom(group, x.num_rows * row_packs);
    const auto shared_bytes = static_cast<size_t>(row_packs) * Pack<T>::kSize * sizeof(float);
    Require(static_cast<int>(shared_bytes) <= stream.properties.shared_bytes_per_block - kStaticSharedBytes,
            "one_shot_all_reduce_add_rms_norm: rows are longer than a block's shared memory");
    const AddRmsNormRows<T> rows{static_cast<const T*>(x.data),
                                 static_cast<float*>(op.residual.data),
                                 op.weight,
                                 static_cast<T*>(op.y.data),
                                 x.stride,
                                 op.residual.stride,
                                 op.y.stride,
                                 static_cast<int>(x.num_rows),
                                 static_cast<int>(x.size),
                                 op.epsilon};
    const auto num_blocks = static_cast<unsigned>(std::min<int64_t>(group.max_blocks(rank), x.num_rows));
    const auto num_threads = static_cast<unsigned>(std::min<int64_t>(kNormThreads, (row_packs + 31) / 32 * 32));
    DispatchSize(group.size(), [&]<int kSize>() {
      const auto kernel = OneShotAddRmsNormKernel<T, kSize>;
      AllowShared(kernel, shared_bytes);
      Launch(stream, kernel, dim3(num_blocks), dim3(num_threads), shared_bytes, group.ViewOf(rank), rows);
    });
  });
}

}  // namespace heddle::cuda
