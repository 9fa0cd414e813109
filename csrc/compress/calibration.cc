#include "compress/calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rounding.h"
#include "comm/local_communicator.h"
#include "compress/matrix_algebra.h"
#include "loader/quantized_checkpoint.h"

namespace heddle {
namespace {

constexpr int kBlockSize = 16;

int NumBlocks(int max_tokens) { return static_cast<int>(CeilDiv(max_tokens, kBlockSize)) + 1; }

// Matrices as floats, whichever way they are stored.
WeightFormats FormatsOf(const SourceCheckpoint& source, const ModelConfig& config) {
  return WeightFormats(config.dtype, Quantization::kNone, Sparsity::kNone, source.stored());
}

int64_t ArenaBytes(const ModelFootprint& footprint, const ModelConfig& config, int max_tokens) {
  constexpr int64_t kAlignment = 4096;
  const int64_t hidden = config.hidden_size * static_cast<int64_t>(sizeof(float));
  return max_tokens * (footprint.activation_bytes_per_token + hidden) + kAlignment;
}

// [columns, rows] of x [rows, columns].
Tensor Transposed(Stream& stream, const TensorView& x) {
  Tensor result(DType::kFloat32, {x.dim(1), x.dim(0)});
  stream.threads().RunPieces(x.dim(1), 64, [&](int, int64_t begin, int64_t end) {
    for (int64_t row = 0; row < x.dim(0); ++row) {
      for (int64_t column = begin; column < end; ++column) {
        result.view().Row<float>(column)[row] = x.Row<float>(row)[column];
      }
    }
  });
  return result;
}

}  // namespace

void InputObserver::Observe(Stream& stream, std::span<const std::string> prefixes, const TensorView& x) {
  InputStatistics& statistics = statistics_[prefixes[0]];
  if (statistics.prefixes.empty()) {
    statistics.prefixes.assign(prefixes.begin(), prefixes.end());
    statistics.largest.resize(static_cast<size_t>(x.dim(1)));
    statistics.squares.resize(static_cast<size_t>(x.dim(1)));
  }
  stream.threads().RunPieces(x.dim(1), 512, [&](int, int64_t begin, int64_t end) {
    for (int64_t row = 0; row < x.dim(0); ++row) {
      const float* values = x.Row<float>(row);
      for (int64_t i = begin; i < end; ++i) {
        const auto column = static_cast<size_t>(i);
        statistics.largest[column] = std::max(statistics.largest[column], std::fabs(values[i]));
        statistics.squares[column] += static_cast<double>(values[i]) * values[i];
      }
    }
  });
  if (with_hessian_.count(prefixes[0]) == 0) return;
  if (statistics.hessian.empty()) statistics.hessian = Tensor(DType::kFloat32, {x.dim(1), x.dim(1)});
  const Tensor columns = Transposed(stream, x);
  AddProduct(stream, 1, columns, columns, statistics.hessian, true);
}

void InputObserver::Begin(std::set<std::string> with_hessian) {
  with_hessian_ = std::move(with_hessian);
  statistics_.clear();
}

Tensor InputObserver::TakeHessian(const std::string& input) {
  Tensor hessian = std::exchange(statistics_.at(input).hessian, Tensor());
  HEDDLE_CHECK(!hessian.empty(), input);
  return hessian;
}

CalibrationModel::CalibrationModel(const SourceCheckpoint& source, int max_tokens, Stream& stream,
                                   LinearObserver& observer, const std::atomic<bool>& cancelled)
    : stream_(stream),
      cancelled_(cancelled),
      communicator_(std::move(CreateLocalGroup(1, std::chrono::hours(1), false)[0])),
      weights_(OpenQuantizedCheckpoint(source.folder(), source.stored())) {
  const ModelFamily& family = FindModelFamily(source.config());
  config_ = family.parse_config(source.config());
  if (max_tokens > config_.max_positions) {
    throw Error(ErrorCode::kInvalidArgument,
                "calibration must have sequences of at most " + std::to_string(config_.max_positions) +
                    " tokens for this model, received one of " + std::to_string(max_tokens));
  }
  const TensorParallel tp{0, 1, communicator_.get()};
  communicator_->Connect(stream);
  const std::function<void(int64_t)> on_packed = [](int64_t) {};
  const WeightFormats formats = FormatsOf(source, config_);
  const BuildContext context{.tp = tp,
                             .weights = *weights_,
                             .cache = nullptr,
                             .uploader = nullptr,
                             .formats = formats,
                             .memory = slab_,
                             .stream = stream,
                             .on_packed = on_packed,
                             .cancelled = cancelled,
                             .observer = &observer};
  model_ = family.build(context, config_, max_tokens);
  kv_cache_ = std::make_unique<KVCache>(config_.dtype, config_.num_layers, NumBlocks(max_tokens), kBlockSize,
                                        config_.num_kv_heads, config_.head_dim);
  const ModelFootprint footprint = family.footprint(config_, tp, formats, DeviceType::kCpu);
  arena_ = std::make_unique<Arena>(static_cast<size_t>(ArenaBytes(footprint, config_, max_tokens)));
}

CalibrationModel::~CalibrationModel() = default;

int64_t CalibrationModel::SizeBytes(const SourceCheckpoint& source, int max_tokens) {
  const ModelFamily& family = FindModelFamily(source.config());
  const ModelConfig config = family.parse_config(source.config());
  const ModelFootprint footprint =
      family.footprint(config, TensorParallel{}, FormatsOf(source, config), DeviceType::kCpu);
  const int64_t cache_bytes =
      NumBlocks(max_tokens) *
      KVCache::BytesPerBlock(config.dtype, config.num_layers, kBlockSize, config.num_kv_heads, config.head_dim);
  return footprint.weight_bytes + cache_bytes + footprint.bytes_per_position * max_tokens +
         ArenaBytes(footprint, config, max_tokens);
}

void CalibrationModel::Run(std::span<const int32_t> token_ids) {
  const auto num_tokens = static_cast<int32_t>(token_ids.size());
  for (const int32_t id : token_ids) {
    if (id >= 0 && id < config_.vocab_size) continue;
    throw Error(ErrorCode::kInvalidArgument, "calibration must be of token ids below the vocabulary's size " +
                                                 std::to_string(config_.vocab_size) + ", received " +
                                                 std::to_string(id));
  }
  std::vector<int32_t> positions(token_ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<int32_t> blocks(static_cast<size_t>(CeilDiv(num_tokens, kBlockSize)));
  std::iota(blocks.begin(), blocks.end(), 1);  // 0 is the null block
  std::vector<int64_t> slots(token_ids.size());
  std::iota(slots.begin(), slots.end(), int64_t{kBlockSize});
  const std::vector<int32_t> query_start = {0, num_tokens};
  const std::vector<int32_t> lengths = {num_tokens};
  ForwardContext context{
      .stream = stream_,
      .arena = *arena_,
      .kv_cache = *kv_cache_,
      .activation_dtype = DType::kFloat32,
      .num_positions = num_tokens,
      .token_ids = token_ids,
      .positions = positions,
      .slot_mapping = slots,
      .attention = {query_start, lengths, blocks, static_cast<int>(blocks.size()), num_tokens, num_tokens},
      .cancelled = cancelled_};
  const Arena::Scope scope(*arena_);
  const TensorView hidden = arena_->Allocate(DType::kFloat32, {num_tokens, config_.hidden_size});
  model_->Forward(context, hidden);
}

}  // namespace heddle
