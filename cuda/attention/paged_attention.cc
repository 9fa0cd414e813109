#include "common/checks.h"
#include "common/ops.h"

namespace heddle::cuda {
namespace {

void CheckCache(const HeddleCudaKVCache& cache) {
  Require(cache.dtype == kHeddleCudaFloat32 || cache.dtype == kHeddleCudaFloat16 ||
              cache.dtype == kHeddleCudaBFloat16 || cache.dtype == kHeddleCudaInt8,
          "paged_attention: cache has a dtype that is none");
  Require(cache.num_blocks > 0 && cache.num_kv_heads > 0, "paged_attention: cache is empty");
  Require(cache.block_size == 16 || cache.block_size == 32 || cache.block_size == 64 || cache.block_size == 128,
          "paged_attention: block_size is not 16, 32, 64 or 128");
  Require(cache.head_dim > 0 && cache.head_dim <= 512 && cache.head_dim % 2 == 0,
          "paged_attention: head_dim is not even or above 512");
  Require(cache.keys != nullptr && cache.values != nullptr, "paged_attention: cache is null");
  Require(IsAligned(cache.keys) && IsAligned(cache.values), "paged_attention: cache does not begin on 16 bytes");
}

void CheckRows(const HeddleCudaPagedAttention& op) {
  CheckMatrix(op.q, "paged_attention: q");
  CheckMatrix(op.out, "paged_attention: out");
  const int64_t size = int64_t{op.num_heads} * op.cache.head_dim;
  Require(op.q.size == size && op.out.size == size, "paged_attention: q or out has not num_heads * head_dim columns");
  Require(op.q.num_rows == op.out.num_rows, "paged_attention: q and out differ in rows");
  Require(op.q.dtype == op.out.dtype, "paged_attention: q and out differ in dtype");
  Require(HasAlignedRows(op.q) && HasAlignedRows(op.out), "paged_attention: rows do not begin on 16 bytes");
  Require(op.max_query_len != 1 || op.q.num_rows == op.num_seqs, "paged_attention: rows are not one for each sequence");
}

void CheckSequences(const HeddleCudaPagedAttention& op) {
  Require(op.num_seqs >= 0 && op.max_query_len >= 0 && op.max_seq_len >= 0, "paged_attention: a negative size");
  if (op.num_seqs == 0) return;
  Require(op.query_start_loc != nullptr && op.seq_lens != nullptr, "paged_attention: metadata is null");
  Require(op.block_table != nullptr || op.max_seq_len == 0, "paged_attention: block_table is null");
  Require(op.block_table_stride * op.cache.block_size >= op.max_seq_len,
          "paged_attention: block_table has no room for max_seq_len");
}

void CheckArguments(const HeddleCudaPagedAttention& op) {
  CheckCache(op.cache);
  Require(op.num_heads > 0 && op.num_heads % op.cache.num_kv_heads == 0,
          "paged_attention: num_heads is not a multiple of num_kv_heads");
  Require(op.sliding_window >= 0, "paged_attention: a negative sliding_window");
  Require(op.soft_cap >= 0, "paged_attention: a negative soft_cap");
  CheckSequences(op);
  CheckRows(op);
}

}  // namespace

void PagedAttention(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  CheckArguments(op);
  if (op.num_seqs == 0 || op.max_query_len == 0 || op.q.num_rows == 0) return;
  if (op.max_query_len == 1) {
    DecodeAttention(stream, op);
  } else {
    PrefillAttention(stream, op);
  }
}

}  // namespace heddle::cuda
