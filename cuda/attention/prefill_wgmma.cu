// Prefill with Hopper's tensor cores. As many blocks as multiprocessors stay until no tile is left; whoever is done
// takes the next one, and the longest come first.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "attention/prefill.h"
#include "attention/prefill_wgmma_consumer.cuh"
#include "attention/prefill_wgmma_int8.cuh"
#include "attention/prefill_wgmma_producer.cuh"
#include "common/launch.h"
#include "common/tensor_map.h"

namespace heddle::cuda {
namespace {

template <typename T, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) PrefillWgmmaKernel(const __grid_constant__ WgmmaParameters p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t shared_bytes[];
  const uint32_t misalignment = SharedAddress(shared_bytes) % 1024;
  auto& shared = *reinterpret_cast<WgmmaShared<Shape>*>(shared_bytes + (1024 - misalignment) % 1024);
  if (threadIdx.x == 0) {
    hopper::PrefetchMap(p.q);
    if constexpr (!Shape::kInt8) {
      hopper::PrefetchMap(p.keys);
      hopper::PrefetchMap(p.values);
    }
    shared.Init();
  }
  __syncthreads();
  AllowNext();
  WaitForPrevious();
  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  if (warpgroup < Shape::kFirstConsumer) {
    hopper::GiveUpRegisters<Shape::kProducerRegisters>();
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
    if constexpr (Shape::kInt8) {
      if (warp == 0) {
        WgmmaProducer<Shape, WgmmaTileCopies<Shape>>(p, shared).Run();
      } else {
        WgmmaConverter<T, Shape>(shared, warp - 1).Run();
      }
    } else if (warp == 0) {
      WgmmaProducer<Shape, WgmmaBoxCopies<Shape>>(p, shared).Run();
    }
  } else {
    hopper::TakeRegisters<Shape::kConsumerRegisters>();
    WgmmaConsumer<T, Shape>(p, shared, warpgroup - Shape::kFirstConsumer).Run();
  }
#elif defined(__CUDA_ARCH__)
  __trap();  // built for compute capability 9.0, but without the instructions that only 9.0a has
#endif
}

TensorMapShape CacheShape(const HeddleCudaKVCache& cache, const void* base, int num_rows, int box_rows) {
  return {.base = base,
          .dtype = cache.dtype,
          .rank = 2,
          .size = {static_cast<uint64_t>(cache.head_dim), static_cast<uint64_t>(num_rows), 1},
          .stride_bytes = {static_cast<uint64_t>(2 * cache.head_dim), 0},
          .box = {64, static_cast<uint32_t>(box_rows), 1}};
}

TensorMapShape QueryShape(const HeddleCudaPagedAttention& op, int group_size, int tokens) {
  // A single row has any stride, but a map is asked for a good one.
  const int64_t stride = op.q.num_rows == 1 ? op.q.size : op.q.stride;
  return {.base = op.q.data,
          .dtype = op.q.dtype,
          .rank = 3,
          .size = {static_cast<uint64_t>(op.cache.head_dim), static_cast<uint64_t>(op.num_heads),
                   static_cast<uint64_t>(op.q.num_rows)},
          .stride_bytes = {static_cast<uint64_t>(2 * op.cache.head_dim), static_cast<uint64_t>(2 * stride)},
          .box = {64, static_cast<uint32_t>(group_size), static_cast<uint32_t>(tokens)}};
}

int64_t NumCacheRows(const HeddleCudaKVCache& cache) {
  return cache.num_blocks * cache.num_kv_heads * cache.block_size;
}

template <typename T, class Shape>
void LaunchWgmma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  WgmmaParameters p{};
  p.attention = MakeAttentionParameters(op);
  const int tokens_per_tile = Shape::kRows / p.attention.group_size;
  p.rows_per_tile = tokens_per_tile * p.attention.group_size;
  p.box_rows = std::min<int>(op.cache.block_size, Shape::kMaxBoxRows);
  p.num_cache_rows = static_cast<int32_t>(NumCacheRows(op.cache));
  p.counters = stream.counters;
  p.q = TensorMapOf(QueryShape(op, p.attention.group_size, tokens_per_tile));
  if constexpr (!Shape::kInt8) {
    p.keys = TensorMapOf(CacheShape(op.cache, op.cache.keys, p.num_cache_rows, p.box_rows));
    p.values = TensorMapOf(CacheShape(op.cache, op.cache.values, p.num_cache_rows, p.box_rows));
  }

  const int64_t tiles = MaxPrefillTiles(op, p.rows_per_tile) * op.cache.num_kv_heads;
  const int64_t blocks = std::min<int64_t>(tiles, stream.properties.num_multiprocessors);
  constexpr size_t kSharedBytes = sizeof(WgmmaShared<Shape>) + 1024;  // for alignment
  static_assert(kSharedBytes <= 227 * 1024);
  const auto kernel = PrefillWgmmaKernel<T, Shape>;
  AllowShared(kernel, kSharedBytes);
  Launch(stream, kernel, dim3(static_cast<unsigned>(blocks)), dim3(Shape::kThreads), kSharedBytes, p);
}

template <typename T, bool kInt8>
void LaunchHeads(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  switch (op.cache.head_dim) {
    case 64:
      return LaunchWgmma<T, WgmmaShape<64, kInt8>>(stream, op);
    case 96:
      return LaunchWgmma<T, WgmmaShape<96, kInt8>>(stream, op);
    case 128:
      return LaunchWgmma<T, WgmmaShape<128, kInt8>>(stream, op);
    default:
      return LaunchWgmma<T, WgmmaShape<256, kInt8>>(stream, op);
  }
}

}  // namespace

bool CanPrefillWgmma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  return stream.properties.major == 9 && stream.properties.minor == 0 && CanPrefillMma(op) && op.soft_cap == 0 &&
         op.num_heads / op.cache.num_kv_heads <= WgmmaShape<128, false>::kRows &&
         NumCacheRows(op.cache) <= std::numeric_limits<int32_t>::max();
}

void PrefillWgmma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  DispatchFloat(op.q.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      op.cache.dtype == kHeddleCudaInt8 ? LaunchHeads<T, true>(stream, op) : LaunchHeads<T, false>(stream, op);
    }
  });
}

}  // namespace heddle::cuda
