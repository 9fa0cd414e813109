#include "ops/cuda/ops.h"

#include "heddle_cuda.h"
#include "ops/checks.h"
#include "tensor/cuda_matrix.h"

namespace heddle::ops::cuda {
namespace {

const float* VectorOf(const char* what, const TensorView& view, int64_t size) {
  CheckContiguous(what, view, DType::kFloat32, {size});
  return view.Data<float>();
}

HeddleCudaKVCache CacheOf(const KVCacheView& cache) {
  CheckRank("the KV cache", cache.keys, 4);
  CheckContiguous("the KV cache", cache.values, cache.keys.dtype, cache.keys.shape);
  const int64_t scale_bytes = cache.keys.dtype == DType::kInt8 ? kScaleBytes : 0;
  return {.keys = cache.keys.data,
          .values = cache.values.data,
          .dtype = CudaDTypeOf(cache.keys.dtype),
          .num_blocks = cache.keys.dim(0),
          .num_kv_heads = static_cast<int32_t>(cache.keys.dim(1)),
          .block_size = cache.block_size,
          .head_dim = static_cast<int32_t>(cache.keys.dim(3) - scale_bytes)};
}

HeddleCudaWeight WeightOf(const PackedMatrix& weight) {
  const MatrixFormat& format = weight.format();
  const TensorView metadata = weight.RowMetadata();
  const HeddleCudaXQuantization quantized =
      format.provider == Provider::kHeddle ? kHeddleCudaQuantizeX : kHeddleCudaBitsAndBytesX;
  return {.values = CudaMatrixOf(weight.Rows()),
          .scales = static_cast<const float*>(weight.RowScales().data),
          .metadata = static_cast<const uint8_t*>(metadata.data),
          .metadata_stride = metadata.row_stride,
          .x_quantization = format.quantize_x ? quantized : kHeddleCudaKeepX,
          .outlier_threshold = format.outlier_threshold};
}

static_assert(static_cast<int>(Activation::kSilu) == kHeddleCudaSilu);
static_assert(static_cast<int>(Activation::kGeluTanh) == kHeddleCudaGeluTanh);
static_assert(static_cast<int>(Activation::kGelu) == kHeddleCudaGelu);

}  // namespace

void Embedding(Stream& stream, std::span<const int32_t> ids, const TensorView& table, const float* table_scales,
               int64_t first_id, float scale, const TensorView& y) {
  const HeddleCudaEmbedding op{.ids = ids.data(),
                               .table = CudaMatrixOf(table),
                               .table_scales = table_scales,
                               .first_id = first_id,
                               .scale = scale,
                               .y = CudaMatrixOf(y)};
  CheckCuda(CudaApi().embedding(stream.cuda()->get(), &op));
}

void RmsNorm(Stream& stream, const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y) {
  const bool heads = x.shape.rank() == 3;
  const HeddleCudaRmsNorm op{.x = CudaMatrixOf(x),
                             .num_heads = heads ? static_cast<int32_t>(x.dim(1)) : 1,
                             .weight = VectorOf("RmsNorm: weight", weight, heads ? x.dim(2) : x.dim(1)),
                             .epsilon = epsilon,
                             .y = CudaMatrixOf(y)};
  CheckCuda(CudaApi().rms_norm(stream.cuda()->get(), &op));
}

void AddRmsNorm(Stream& stream, const TensorView& x, const TensorView& residual, const TensorView& weight,
                float epsilon, const TensorView& y) {
  const HeddleCudaAddRmsNorm op{.x = CudaMatrixOf(x),
                                .residual = CudaMatrixOf(residual),
                                .weight = VectorOf("AddRmsNorm: weight", weight, x.dim(1)),
                                .epsilon = epsilon,
                                .y = CudaMatrixOf(y)};
  CheckCuda(CudaApi().add_rms_norm(stream.cuda()->get(), &op));
}

void AddBias(Stream& stream, const TensorView& bias, const TensorView& y) {
  const HeddleCudaAddBias op{.bias = VectorOf("AddBias: bias", bias, y.dim(1)), .y = CudaMatrixOf(y)};
  CheckCuda(CudaApi().add_bias(stream.cuda()->get(), &op));
}

void Matmul(Stream& stream, const TensorView& x, const PackedMatrix& weight, const TensorView& y,
            const TensorView* bias) {
  const HeddleCudaMatmul op{.x = CudaMatrixOf(x),
                            .weight = WeightOf(weight),
                            .bias = bias == nullptr ? nullptr : VectorOf("Matmul: bias", *bias, weight.n()),
                            .y = CudaMatrixOf(y)};
  CheckCuda(CudaApi().matmul(stream.cuda()->get(), &op));
}

void GatedMatmul(Stream& stream, Activation activation, const TensorView& x, const PackedMatrix& gate_up,
                 const TensorView& y, const TensorView* bias) {
  const HeddleCudaGatedMatmul op{.x = CudaMatrixOf(x),
                                 .gate_up = WeightOf(gate_up),
                                 .bias = bias == nullptr ? nullptr : VectorOf("GatedMatmul: bias", *bias, gate_up.n()),
                                 .activation = static_cast<HeddleCudaActivation>(activation),
                                 .y = CudaMatrixOf(y)};
  CheckCuda(CudaApi().gated_matmul(stream.cuda()->get(), &op));
}

void SoftCap(Stream& stream, float cap, const TensorView& x) {
  const HeddleCudaSoftCap op{.cap = cap, .x = CudaMatrixOf(x)};
  CheckCuda(CudaApi().soft_cap(stream.cuda()->get(), &op));
}

void GatherRows(Stream& stream, const TensorView& x, std::span<const int32_t> rows, const TensorView& y) {
  const HeddleCudaGatherRows op{.x = CudaMatrixOf(x), .rows = rows.data(), .y = CudaMatrixOf(y)};
  CheckCuda(CudaApi().gather_rows(stream.cuda()->get(), &op));
}

void RotateAndStore(Stream& stream, std::span<const int32_t> positions, const TensorView& cos_sin, const TensorView& q,
                    const TensorView& k, const TensorView& v, std::span<const int64_t> slot_mapping,
                    const KVCacheView& cache) {
  CheckRank("RotateAndStore: cos_sin", cos_sin, 2);
  CheckContiguous("RotateAndStore: cos_sin", cos_sin, DType::kFloat32, cos_sin.shape);
  const HeddleCudaRotateAndStore op{.positions = positions.data(),
                                    .cos_sin = cos_sin.Data<float>(),
                                    .max_positions = static_cast<int32_t>(cos_sin.dim(0)),
                                    .rotary_dim = static_cast<int32_t>(cos_sin.dim(1)),
                                    .q = CudaMatrixOf(q),
                                    .k = CudaMatrixOf(k),
                                    .v = CudaMatrixOf(v),
                                    .slot_mapping = slot_mapping.data(),
                                    .cache = CacheOf(cache)};
  CheckCuda(CudaApi().rotate_and_store(stream.cuda()->get(), &op));
}

void PagedAttention(Stream& stream, const TensorView& q, const KVCacheView& cache, const AttentionMetadata& metadata,
                    const AttentionParams& params, const TensorView& out) {
  HEDDLE_CHECK(metadata.max_query_len > 0 && metadata.max_seq_len > 0, "bounds of the sequences are missing");
  const HeddleCudaPagedAttention op{.q = CudaMatrixOf(q),
                                    .cache = CacheOf(cache),
                                    .query_start_loc = metadata.query_start_loc.data(),
                                    .seq_lens = metadata.seq_lens.data(),
                                    .block_table = metadata.block_table.data(),
                                    .block_table_stride = metadata.max_blocks_per_seq,
                                    .num_seqs = static_cast<int32_t>(metadata.seq_lens.size()),
                                    .max_query_len = metadata.max_query_len,
                                    .max_seq_len = metadata.max_seq_len,
                                    .num_heads = params.num_heads,
                                    .scale = params.scale,
                                    .sliding_window = params.sliding_window,
                                    .soft_cap = params.soft_cap,
                                    .out = CudaMatrixOf(out)};
  CheckCuda(CudaApi().paged_attention(stream.cuda()->get(), &op));
}

}  // namespace heddle::ops::cuda
