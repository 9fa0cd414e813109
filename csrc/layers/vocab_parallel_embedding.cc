#include "layers/vocab_parallel_embedding.h"

#include "layers/linear.h"
#include "layers/weight_loading.h"

namespace heddle {
ParallelLMHead::ParallelLMHead(const BuildContext& context, const std::string& name, int64_t vocab_size,
                               int64_t hidden_size)
    : tp_(context.tp),
      shard_(context.tp.Shard(vocab_size, kShardUnit)),
      weight_(context.formats.Head(ModuleOf(name)), shard_.size(), hidden_size, {0, hidden_size}, context.layout(),
              &context.memory) {
  if (Restore(context, name, weight_)) return;
  PackRows(context, name, *context.weights.Get(name, {vocab_size, hidden_size}), shard_, {0, hidden_size}, 0, weight_);
}

void ParallelLMHead::Forward(ForwardContext& context, const TensorView& hidden, float soft_cap,
                             const TensorView& logits) const {
  const Arena::Scope scope(context.arena);
  // A lone rank computes in place; others gather.
  const TensorView part =
      tp_.size == 1 ? logits : context.arena.Allocate(DType::kFloat32, {hidden.dim(0), shard_.size()});
  ops::Matmul(context.stream, hidden, weight_, part);
  if (soft_cap > 0) ops::SoftCap(context.stream, soft_cap, part);
  if (tp_.size > 1) tp_.communicator->GatherColumns(part, 0, logits);
}

VocabParallelEmbedding::VocabParallelEmbedding(const BuildContext& context, const std::string& name, int64_t vocab_size,
                                               int64_t hidden_size)
    : tp_(context.tp), shard_(context.tp.Shard(vocab_size, kShardUnit)) {
  const auto stored = context.weights.Get(name, {vocab_size, hidden_size});
  if (context.layout() == MatrixLayout::kPanels) {
    table_ = LoadRows(context, name, *stored, shard_);
    return;
  }
  rows_ = PackedMatrix({.dtype = context.formats.dtype()}, shard_.size(), hidden_size, {0, hidden_size},
                       context.layout(), &context.memory);
  PackRows(context, name, *stored, shard_, {0, hidden_size}, 0, rows_);
}

VocabParallelEmbedding::VocabParallelEmbedding(const TensorParallel& tp, const ParallelLMHead& head)
    : tp_(tp), shard_(head.shard()), shared_(&head.weight()) {}

size_t VocabParallelEmbedding::weight_bytes() const {
  if (shared_ != nullptr) return 0;
  if (table_.empty()) return rows_.size_bytes();
  return static_cast<size_t>(table_.view().shape.NumElements()) * DTypeSize(table_.view().dtype);
}

void VocabParallelEmbedding::Forward(ForwardContext& context, float scale, const TensorView& y) const {
  if (table_.empty()) {
    ops::Embedding(context.stream, context.token_ids, shared_ != nullptr ? *shared_ : rows_, shard_.begin, scale, y);
  } else {
    ops::Embedding(context.stream, context.token_ids, table_, shard_.begin, scale, y);
  }
  tp_.communicator->AllReduceSum(y);
}

}  // namespace heddle
