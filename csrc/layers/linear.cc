#include "layers/linear.h"

#include <algorithm>

#include "layers/weight_loading.h"

namespace heddle {
namespace {

// Packs rows [row_begin, ...) of a stored matrix.
void PackStored(const BuildContext& context, const StoredMatrix& stored, Range rows, Range columns, int64_t at,
                PackedMatrix& weight) {
  const std::string name = stored.prefix + ".weight";
  const auto tensor = context.weights.Get(name, {stored.stored_rows, stored.columns});
  PackRows(context, name, *tensor, {stored.row_begin + rows.begin, stored.row_begin + rows.end}, columns, at, weight);
}

// Where rows of a stored matrix go in a fused one.
struct FusedPart {
  const StoredMatrix& stored;
  Range shard;  // of stored.rows
  int64_t at;
};

// The parts into `weight`, and their biases into `bias`, in host memory, unless that is empty.
void LoadParts(const BuildContext& context, const std::vector<FusedPart>& parts, PackedMatrix& weight,
               const Tensor& bias) {
  const bool restored = Restore(context, parts[0].stored.prefix, weight);
  for (const auto& [stored, shard, at] : parts) {
    if (!restored) PackStored(context, stored, shard, {0, stored.columns}, at, weight);
    if (bias.empty()) continue;
    const Tensor whole = ReadVector(context.weights, stored.prefix + ".bias", stored.stored_rows);
    std::copy_n(whole.view().Data<float>() + stored.row_begin + shard.begin, shard.size(),
                bias.view().Data<float>() + at);
  }
}

std::vector<std::string> PrefixesOf(const std::vector<ColumnParallelLinear::Part>& parts) {
  std::vector<std::string> prefixes;
  prefixes.reserve(parts.size());
  for (const auto& part : parts) prefixes.push_back(part.stored.prefix);
  return prefixes;
}

}  // namespace

ColumnParallelLinear::ColumnParallelLinear(const BuildContext& context, const std::vector<Part>& parts)
    : input_(context.observer, PrefixesOf(parts)) {
  int64_t rows = 0;
  std::vector<FusedPart> fused;
  std::vector<std::string> modules;
  for (const Part& part : parts) {
    modules.push_back(part.stored.prefix);
    fused.push_back({part.stored, part.shard, rows});
    rows += part.shard.size();
  }
  const int64_t columns = parts[0].stored.columns;
  weight_ = PackedMatrix(context.formats.Linear(modules, columns, columns), rows, columns, {0, columns},
                         context.layout(), &context.memory);
  const Tensor bias = parts[0].stored.bias ? Tensor(DType::kFloat32, {rows}) : Tensor();
  LoadParts(context, fused, weight_, bias);
  if (!bias.empty()) bias_ = ToDevice(context, bias);
}

void ColumnParallelLinear::Forward(Stream& stream, const TensorView& x, const TensorView& y) const {
  input_.Observe(stream, x);
  ops::Matmul(stream, x, weight_, y, bias_.empty() ? nullptr : &bias_.view());
}

RowParallelLinear::RowParallelLinear(const BuildContext& context, const StoredMatrix& stored, int64_t unit)
    : tp_(context.tp), input_(context.observer, {stored.prefix}) {
  const Range shard = tp_.Shard(stored.columns, unit);
  weight_ = PackedMatrix(context.formats.Linear({stored.prefix}, stored.columns, unit), stored.rows, shard.size(),
                         tp_.ShardSlices(stored.columns, unit), context.layout(), &context.memory);
  if (!Restore(context, stored.prefix, weight_)) {
    PackStored(context, stored, {0, stored.rows}, shard, 0, weight_);
  }
  if (stored.bias) bias_ = LoadVector(context, stored.prefix + ".bias", stored.rows);
}

void RowParallelLinear::Forward(Stream& stream, const TensorView& x, const TensorView& y,
                                const ResidualNorm* next) const {
  input_.Observe(stream, x);
  ops::Matmul(stream, x, weight_, y);
  Communicator& communicator = *tp_.communicator;
  // A bias would come in between.
  if (next != nullptr && bias_.empty() &&
      communicator.TryAllReduceAddRmsNorm(y, next->residual, next->weight, next->epsilon, y)) {
    return;
  }
  communicator.AllReduceSum(y);
  if (!bias_.empty()) ops::AddBias(stream, bias_, y);
  if (next != nullptr) ops::AddRmsNorm(stream, y, next->residual, next->weight, next->epsilon, y);
}

HeadShard HeadShard::Of(const TensorParallel& tp, int num_heads, int num_kv_heads) {
  if (num_heads % tp.size != 0 || (num_kv_heads % tp.size != 0 && tp.size % num_kv_heads != 0)) {
    throw Error(ErrorCode::kInvalidArgument,
                "parallel.tensorParallelSize must divide the model's " + std::to_string(num_heads) +
                    " attention heads and divide or be a multiple of its " + std::to_string(num_kv_heads) +
                    " key-value heads, received " + std::to_string(tp.size));
  }
  HeadShard shard;
  const int heads = num_heads / tp.size;
  shard.heads = {tp.rank * heads, (tp.rank + 1) * heads};
  const int kv_heads = std::max(1, num_kv_heads / tp.size);
  const int first = static_cast<int>(int64_t{tp.rank} * num_kv_heads / tp.size);
  shard.kv_heads = {first, first + kv_heads};
  return shard;
}

ColumnParallelLinear QKVParallelLinear(const BuildContext& context, const StoredMatrix& q, const StoredMatrix& k,
                                       const StoredMatrix& v, const HeadShard& shard, int head_dim) {
  const Range heads{shard.heads.begin * head_dim, shard.heads.end * head_dim};
  const Range kv_heads{shard.kv_heads.begin * head_dim, shard.kv_heads.end * head_dim};
  return {context, {{q, heads}, {k, kv_heads}, {v, kv_heads}}};
}

GatedColumnParallelLinear::GatedColumnParallelLinear(const BuildContext& context, const StoredMatrix& gate,
                                                     const StoredMatrix& up, ops::Activation activation)
    : activation_(activation), input_(context.observer, {gate.prefix, up.prefix}) {
  const Range shard = context.tp.Shard(gate.rows, kShardUnit);
  output_size_ = shard.size();
  const int64_t half = ops::GatedHalf(output_size_, context.layout());
  weight_ = PackedMatrix(context.formats.Linear({gate.prefix, up.prefix}, gate.columns, gate.columns), 2 * half,
                         gate.columns, {0, gate.columns}, context.layout(), &context.memory);
  const Tensor bias = gate.bias ? Tensor(DType::kFloat32, {2 * half}) : Tensor();
  LoadParts(context, {{gate, shard, 0}, {up, shard, half}}, weight_, bias);
  if (!bias.empty()) bias_ = ToDevice(context, bias);
}

void GatedColumnParallelLinear::Forward(Stream& stream, const TensorView& x, const TensorView& y) const {
  input_.Observe(stream, x);
  ops::GatedMatmul(stream, activation_, x, weight_, y, bias_.empty() ? nullptr : &bias_.view());
}

}  // namespace heddle
