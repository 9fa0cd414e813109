// What layers need while they are built, and while they run.
#pragma once

#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/tensor_parallel.h"
#include "device/stream.h"
#include "kvcache/kv_cache.h"
#include "layers/weight_formats.h"
#include "layers/weight_upload.h"
#include "loader/weight_cache.h"
#include "loader/weight_source.h"
#include "ops/ops.h"
#include "tensor/arena.h"

namespace heddle {

// Sees what goes into linear layers, for whoever calibrates; on CPU.
class LinearObserver {
 public:
  virtual ~LinearObserver() = default;

  // x [num_tokens, columns] f32 is about to be multiplied by the matrices stored as `<prefix>.weight`. On the rank's
  // thread.
  virtual void Observe(Stream& stream, std::span<const std::string> prefixes, const TensorView& x) = 0;
};

// While building, on the rank's thread. Outlives the constructors it is passed to, nothing more.
struct BuildContext {
  const TensorParallel& tp;
  WeightSource& weights;
  WeightCache* cache;            // asked before `weights`; may be null
  WeightUploader* uploader;      // where the stream is a GPU's, else null
  const WeightFormats& formats;  // of the matrices in memory
  Allocator& memory;             // of all that the stream's ops read
  Stream& stream;
  const std::function<void(int64_t bytes)>& on_packed;  // after each matrix, packed or restored
  const std::atomic<bool>& cancelled;                   // layers stop loading with kCancelled once it is set
  LinearObserver* observer = nullptr;                   // of the layers, for as long as they live; may be null

  MatrixLayout layout() const { return uploader != nullptr ? MatrixLayout::kRows : MatrixLayout::kPanels; }
};

// One step of one rank. Spans lie in the memory of the stream's device, with one entry a token unless said so.
struct ForwardContext {
  Stream& stream;
  Arena& arena;
  KVCache& kv_cache;
  DType activation_dtype;  // of what goes into matrix products and comes out of them; the residual stream is float32
  int num_positions;       // above every position
  std::span<const int32_t> token_ids;
  std::span<const int32_t> positions;
  std::span<const int64_t> slot_mapping;
  ops::AttentionMetadata attention;
  const std::atomic<bool>& cancelled;  // checked once a layer: a closing engine does not finish long steps

  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
};

}  // namespace heddle
