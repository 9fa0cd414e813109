// DecodeAttention: which kernel, how many blocks, how much shared memory.
#include <algorithm>

#include "attention/decode.h"
#include "attention/decode_combine.cuh"
#include "common/checks.h"
#include "common/launch.h"
#include "common/ops.h"

namespace heddle::cuda {
namespace {

// Of one multiprocessor: enough on its way to hide the memory's latency several times over, and room beside it for the
// first blocks of the next kernel.
constexpr int kPipelineBytes = 150 << 10;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kGenericBlocksPerMultiprocessor = 4;
// Of one block on average, at least, where its warps have as much on their way together: to join the results of several
// blocks takes longer than to read it.
constexpr int kMinPipelinedUnits = 4;
// Blocks that share a segment on average, at most: the last of them reads the results of all.
constexpr int kMaxSharers = 64;

struct LaunchShape {
  int num_blocks = 0;
  int min_units_per_block = 1;
  int num_stages = 0;
  size_t shared_bytes = 0;
};

int HeadsPerTile(const DecodeKernel& kernel, int group_size) { return std::min(kernel.max_heads_per_tile, group_size); }

int64_t TilesOf(const DecodeKernel& kernel, const AttentionParameters& attention) {
  const int heads = HeadsPerTile(kernel, attention.group_size);
  return int64_t{attention.num_kv_heads} * ((attention.group_size + heads - 1) / heads);
}

// Of a sequence's head tile, at most.
int64_t MaxUnits(const HeddleCudaPagedAttention& op) {
  int64_t span = op.max_seq_len;
  if (op.sliding_window > 0) span = std::min<int64_t>(span, int64_t{op.sliding_window} + kChunkTokens - 1);
  return (span + kUnitTokens - 1) / kUnitTokens;
}

// num_stages is 0 when the kernel needs more shared memory than the device has.
LaunchShape ShapeOf(const DeviceProperties& device, const DecodeKernel& kernel, const AttentionParameters& attention,
                    int64_t max_units) {
  const int heads = HeadsPerTile(kernel, attention.group_size);
  const int fixed_bytes = MergeBuffer::Floats(heads, attention.head_dim) * static_cast<int>(sizeof(float)) +
                          heads * kernel.query_bytes_per_head +
                          WorkLine::SharedInts(attention.num_seqs) * static_cast<int>(sizeof(int));
  const int64_t num_segments = attention.num_seqs * TilesOf(kernel, attention);
  const int64_t num_units = num_segments * max_units;
  LaunchShape shape;
  int blocks_per_multiprocessor = kGenericBlocksPerMultiprocessor;
  if (kernel.unit_bytes > 0) {
    blocks_per_multiprocessor = std::clamp(kPipelineBytes / (2 * kernel.unit_bytes), 1, kBlocksPerMultiprocessor);
    shape.min_units_per_block = kMinPipelinedUnits;
  }
  shape.num_blocks = static_cast<int>(std::min(
      {int64_t{device.num_multiprocessors} * blocks_per_multiprocessor, num_segments * kMaxSharers,
       BlocksFor(num_units, num_segments, shape.min_units_per_block), int64_t{HeddleCudaStream::kNumCounters}}));
  if (kernel.unit_bytes > 0) {
    const int64_t wanted = kPipelineBytes / CeilDiv(shape.num_blocks, device.num_multiprocessors) / kernel.unit_bytes;
    const int64_t fitting = (device.shared_bytes_per_block - fixed_bytes) / kernel.unit_bytes;
    const int64_t useful = CeilDiv(num_units, shape.num_blocks);
    shape.num_stages = static_cast<int>(std::clamp<int64_t>(std::min({wanted, fitting, useful}), 0, kMaxStages));
  }
  shape.shared_bytes = static_cast<size_t>(fixed_bytes + shape.num_stages * kernel.unit_bytes);
  return shape;
}

template <typename T>
DecodeKernel TensorKernelFor(const HeddleCudaKVCache& cache, int group_size) {
  if (cache.dtype == kHeddleCudaInt8) return TensorDecodeKernel<T, int8_t>(cache.head_dim, group_size);
  return cache.dtype == kDTypeOf<T> ? TensorDecodeKernel<T, T>(cache.head_dim, group_size) : DecodeKernel{};
}

DecodeKernel KernelFor(const HeddleCudaPagedAttention& op, int group_size) {
  if (op.q.dtype == kHeddleCudaFloat16) return TensorKernelFor<__half>(op.cache, group_size);
  if (op.q.dtype == kHeddleCudaBFloat16) return TensorKernelFor<__nv_bfloat16>(op.cache, group_size);
  return {};
}

void LaunchDecode(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  const AttentionParameters attention = MakeAttentionParameters(op);
  const int64_t max_units = MaxUnits(op);
  DecodeKernel kernel = KernelFor(op, attention.group_size);
  LaunchShape shape;
  if (kernel.function != nullptr) shape = ShapeOf(stream.properties, kernel, attention, max_units);
  if (shape.num_stages == 0) {
    kernel = GenericDecodeKernel(op.cache.dtype, op.cache.head_dim);
    shape = ShapeOf(stream.properties, kernel, attention, max_units);
  }

  DecodeParameters p{};
  p.attention = attention;
  p.heads_per_tile = HeadsPerTile(kernel, attention.group_size);
  p.tiles_per_kv_head = static_cast<int>(TilesOf(kernel, attention) / attention.num_kv_heads);
  p.num_stages = shape.num_stages;
  p.min_units_per_block = shape.min_units_per_block;
  p.dtype = op.q.dtype;
  p.counters = stream.counters;
  const int64_t partial_floats = PartialFloats(p.heads_per_tile, attention.head_dim);
  p.partials = static_cast<float*>(
      stream.Scratch(shape.num_blocks * kPartialsPerBlock * partial_floats * int64_t{sizeof(float)}));
  AllowShared(kernel.function, shape.shared_bytes);
  Launch(stream, kernel.function, dim3(static_cast<unsigned>(shape.num_blocks)), dim3(kDecodeThreads),
         shape.shared_bytes, p);
}

// Sequences [begin, end) of the op, whose tokens are rows of the same numbers.
HeddleCudaPagedAttention SequencesOf(const HeddleCudaPagedAttention& op, int begin, int end) {
  const auto skip_rows = [begin](HeddleCudaMatrix matrix) {
    matrix.data = static_cast<char*>(matrix.data) + begin * matrix.stride * SizeOf(matrix.dtype);
    return matrix;
  };
  HeddleCudaPagedAttention part = op;
  part.q = skip_rows(op.q);
  part.out = skip_rows(op.out);
  part.seq_lens += begin;
  part.block_table += begin * op.block_table_stride;
  part.num_seqs = end - begin;
  return part;
}

}  // namespace

void DecodeAttention(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  if (op.num_seqs == 0 || op.max_seq_len == 0) return;
  // What a block keeps in shared memory of all sequences has a limit, and units are counted in int.
  const int64_t max_units_per_seq = MaxUnits(op) * op.num_heads;
  const int64_t limit = std::clamp<int64_t>((int64_t{1} << 30) / max_units_per_seq, 1, WorkLine::kMaxSequences);
  for (int64_t begin = 0; begin < op.num_seqs; begin += limit) {
    const int64_t end = std::min<int64_t>(op.num_seqs, begin + limit);
    LaunchDecode(stream, SequencesOf(op, static_cast<int>(begin), static_cast<int>(end)));
  }
}

}  // namespace heddle::cuda
