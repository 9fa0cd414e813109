// What libheddle_cuda.so offers: devices, memory, streams, graphs, the ops of a decoder, collectives. The core opens
// the library at run time, asks HeddleCudaGetApi for this table, and includes nothing else of it.
//
// Calls. Every function returns a HeddleCudaStatus; kHeddleCudaOk is zero. After another status HeddleCudaApi::
// last_error gives one sentence about it, on the calling thread. Arguments are plain structs; a shape that an op cannot
// take is kHeddleCudaInvalid, and nothing was launched.
//
// Streams. Ops are launched on a stream and return at once; arguments that point to device memory must stay valid until
// the stream has reached the end of the op. A stream, and what was made from it, belongs to one thread at a time. Where
// ops need scratch memory they take it from the stream's workspace, which is why two ops of one stream never overlap
// beyond what programmatic dependent launch allows. Weights, biases, tables of angles and what says where things lie
// (positions, slot_mapping, seq_lens, block_table) are read before the ops ahead have ended: `copy`, `copy_2d`, `fill`
// and `fill_random` may put them where they are, and no other op. Ops may be captured into a graph.
//
// Shapes. Row-major, innermost dimension contiguous; `stride` is the number of elements between rows. 16-bit and
// 32-bit floats, and int8 in weights and caches; T is the type of activations and of weights that are not quantised,
// one for all of a model. Rows of matrices begin on 16 bytes.
//
// Numbers. Products and sums are float32, rounded once to the output's type, unless an op says otherwise; the result of
// a row depends on the number of rows beside it only by the order of summation and by such roundings.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Changes with every change of this header.
#define HEDDLE_CUDA_API_VERSION 5

typedef enum {
  kHeddleCudaOk = 0,
  kHeddleCudaInvalid = 1,      // arguments: a bug of the caller's
  kHeddleCudaUnavailable = 2,  // no driver, no device, or a library that is not installed
  kHeddleCudaOutOfMemory = 3,
  kHeddleCudaFailed = 4,   // a call failed; the device goes on
  kHeddleCudaSticky = 5,   // the device's context is lost for this process (illegal address, assertion, ECC), also
                           // where a library says only that it failed
  kHeddleCudaTimeout = 6,  // a wait took longer than its limit
  kHeddleCudaAborted = 7   // the communicator was aborted
} HeddleCudaStatus;

typedef enum {
  kHeddleCudaFloat32 = 0,
  kHeddleCudaFloat16 = 1,
  kHeddleCudaBFloat16 = 2,
  kHeddleCudaInt8 = 3  // values of a HeddleCudaWeight, of an embedding's table and of a cache, nothing else
} HeddleCudaDType;
typedef enum { kHeddleCudaSilu = 0, kHeddleCudaGeluTanh = 1, kHeddleCudaGelu = 2 } HeddleCudaActivation;

typedef struct HeddleCudaStream HeddleCudaStream;
typedef struct HeddleCudaGraph HeddleCudaGraph;
typedef struct HeddleCudaEvent HeddleCudaEvent;

typedef struct {
  char name[256];
  int32_t major, minor;  // compute capability
  int32_t num_multiprocessors;
  int64_t total_bytes;
  int64_t free_bytes;  // now, for all processes
  int64_t l2_bytes;
} HeddleCudaDeviceInfo;

// [num_rows, size] of `dtype` with `stride` elements between rows.
typedef struct {
  void* data;
  HeddleCudaDType dtype;
  int64_t num_rows;
  int64_t size;
  int64_t stride;
} HeddleCudaMatrix;

// y[i] = table[ids[i] - first_id] * scale, an int8 table's rows also times their own scales; zero where the table has
// no such row.
typedef struct {
  const int32_t* ids;         // [y.num_rows]
  HeddleCudaMatrix table;     // [rows, hidden], any float type or int8
  const float* table_scales;  // [rows] of an int8 table, else null
  int64_t first_id;
  float scale;
  HeddleCudaMatrix y;  // [num_tokens, hidden] float32
} HeddleCudaEmbedding;

// y = x / sqrt(mean(x^2) + epsilon) * weight, over each of `num_heads` parts of a row.
typedef struct {
  HeddleCudaMatrix x;   // [num_rows, num_heads * size] T or float32
  int32_t num_heads;    // 1: whole rows
  const float* weight;  // [size]
  float epsilon;
  HeddleCudaMatrix y;  // like x in shape, T or float32; may be x, then of the same type and stride
} HeddleCudaRmsNorm;

// residual += x, then y = RmsNorm(residual).
typedef struct {
  HeddleCudaMatrix x;         // [num_rows, hidden] T
  HeddleCudaMatrix residual;  // [num_rows, hidden] float32
  const float* weight;        // [hidden]
  float epsilon;
  HeddleCudaMatrix y;  // [num_rows, hidden] T; may be x
} HeddleCudaAddRmsNorm;

// y += bias in every row.
typedef struct {
  const float* bias;   // [y.size]
  HeddleCudaMatrix y;  // T
} HeddleCudaAddBias;

// How x goes into a product with int8 weights.
typedef enum {
  kHeddleCudaKeepX = 0,      // as it is
  kHeddleCudaQuantizeX = 1,  // as int8 with a scale for each row, but for outliers, which stay as they are
  // The same by the functions of bitsandbytes (see bitsandbytes_check), whose outliers are whole columns.
  kHeddleCudaBitsAndBytesX = 2
} HeddleCudaXQuantization;

// A weight [n, k]. Values are T, or int8 with a scale for each row (output), weight = value * scale; then x is 16-bit.
//
// 2:4: of each group of four neighbours along k two are stored, in their order, and the metadata says which: a nibble a
// group, the lower nibble of a byte first; its low two bits are the position (0 to 3) of the first one, the other two
// that of the second, which is higher. k is a multiple of 8, and x is 16-bit.
//
// Quantised, a row x of T goes in as q[j] = rint(x[j] * (127 / a)) with a = max |x[j]|, over all of k; 0 where 127 / a
// is infinite.
// What reaches the threshold, |x[j]| >= outlier_threshold, is an outlier of its row: it counts neither for a nor in q.
//   y = (sum of q[j] * value[j] in int32, as float32, * (a / 127) + sum over outliers of x[j] * value[j]) * scale
// where k is at most 2^17, and a row of x that holds a NaN or infinity gives NaN. Kept, x gives
//   y = (sum of x[j] * value[j]) * scale
// and a single row of it by int8 may go in as multiples of 2^-21 times the largest power of two (but no less than
// 2^-96) in each of a few parts of the row, the nearest ones. An element may so lose 2^-22 of that power, however small
// it is itself: what a sum loses is little beside max |x[j]| * sum |value[j]|, not beside sum |x[j] * value[j]|. A row
// that holds a NaN or infinity then gives NaN.
//
// By bitsandbytes, x goes in as float16, q is made by a division that is not exact in its last bits, and the first sum,
// scaled, comes out as float16; a gated product's sums are rounded to T before bias and activation. A column in which
// any row of the op has an outlier, NaN, or what float16 does not hold, is multiplied as outliers are in all rows, and
// is 0 in q; what is below the threshold in it counts for a. So a row's result depends on the rows beside it. A product
// too large for the workspace is several ops. The weight is dense; where n or k is no multiple of 4,
// kHeddleCudaQuantizeX it is instead.
typedef struct {
  HeddleCudaMatrix values;  // [n, k], 2:4 [n, k / 2]; T or int8
  const float* scales;      // [n] where values are int8, else null
  const uint8_t* metadata;  // [n, metadata_stride] where the weight is 2:4, else null; begins on 16 bytes
  int64_t metadata_stride;  // bytes between rows, a multiple of 16
  HeddleCudaXQuantization x_quantization;  // kHeddleCudaKeepX where values are T
  float outlier_threshold;                 // unless x is kept: positive; infinity: there are no outliers
} HeddleCudaWeight;

// y = x * weight^T (+ bias).
typedef struct {
  HeddleCudaMatrix x;       // [m, k] T
  HeddleCudaWeight weight;  // [n, k]
  const float* bias;        // [n]; may be null
  HeddleCudaMatrix y;       // [m, n] T or float32
} HeddleCudaMatmul;

// y = activation(x * gate^T) * (x * up^T); gate and up are rows [0, n) and [n, 2n) of one matrix. The two products may
// be rounded to T before the activation, unless there is a bias.
typedef struct {
  HeddleCudaMatrix x;        // [m, k] T
  HeddleCudaWeight gate_up;  // [2n, k]
  const float* bias;         // [2n]; may be null
  HeddleCudaActivation activation;
  HeddleCudaMatrix y;  // [m, n] T
} HeddleCudaGatedMatmul;

// x = cap * tanh(x / cap), in place.
typedef struct {
  float cap;
  HeddleCudaMatrix x;  // float32
} HeddleCudaSoftCap;

// y[i] = x[rows[i]].
typedef struct {
  HeddleCudaMatrix x;   // [num_tokens, size] T
  const int32_t* rows;  // [y.num_rows]
  HeddleCudaMatrix y;   // [num_rows, size] T
} HeddleCudaGatherRows;

// One layer's cache: keys and values [num_blocks, num_kv_heads, block_size, head_dim] each, of any float type or int8.
//
// Where they are int8, each token and head has a float32 scale of its own, which its elements are multiples of. 16
// tokens are a tile: their elements [16, head_dim], then their scales [16], so that keys are [num_blocks, num_kv_heads,
// block_size / 16, 16 * (head_dim + 4)] bytes, and values likewise. What attention takes of a context at once, elements
// and scales, is then one stretch of memory: in an array of their own the scales of 16 tokens would be 64 bytes in a
// place of their own, a page of the device's memory opened for little.
typedef struct {
  void* keys;  // begin on 16 bytes, and so do values
  void* values;
  HeddleCudaDType dtype;
  int64_t num_blocks;
  int32_t num_kv_heads;
  int32_t block_size;  // 16, 32, 64 or 128
  int32_t head_dim;    // even; at most 512
} HeddleCudaKVCache;

// The first rotary_dim elements of every query and key head are rotated in place, pairs (i, i + rotary_dim / 2); then
// keys and values are written into their slots. In an int8 cache a head's scale is its largest magnitude / 127, and
// elements are rounded to nearest, ties to even: zeros of scale zero where that magnitude is below 1e-30, zeros of
// scale NaN where something is not finite, so that what sees the token is NaN too.
typedef struct {
  const int32_t* positions;  // [num_tokens], below max_positions; one beyond takes the last position's angles
  const float* cos_sin;      // [max_positions, rotary_dim]: cosines of rotary_dim / 2 angles, then their sines
  int32_t max_positions;
  int32_t rotary_dim;
  HeddleCudaMatrix q;           // [num_tokens, num_heads * head_dim] T
  HeddleCudaMatrix k, v;        // [num_tokens, num_kv_heads * head_dim] T
  const int64_t* slot_mapping;  // [num_tokens]: block * block_size + offset; negative: the token is padding
  HeddleCudaKVCache cache;
} HeddleCudaRotateAndStore;

// Causal attention over the paged cache, which already holds the step's own keys and values. A key outside a token's
// window contributes nothing, not even when its slot holds NaN; but where several tokens of a sequence are in the step,
// a value that is not finite and that a token sees may make the outputs of tokens before it NaN too. Entries of the
// block table that no token of the step sees are not read. A sequence of seq_lens 0 is padding: its rows of `out` are
// unspecified.
typedef struct {
  HeddleCudaMatrix q;  // [num_tokens, num_heads * head_dim] T
  HeddleCudaKVCache cache;
  const int32_t* query_start_loc;  // [num_seqs + 1]
  const int32_t* seq_lens;         // [num_seqs]: context including this step's tokens
  const int32_t* block_table;      // [num_seqs, block_table_stride]
  int64_t block_table_stride;
  int32_t num_seqs;
  int32_t max_query_len;  // no sequence has more tokens in this step; 1: every row is a sequence's only one
  int32_t max_seq_len;    // no sequence is longer, nor in any replay of a graph
  int32_t num_heads;
  float scale;
  int32_t sliding_window;  // a token sees itself and the window - 1 before it; 0: everything before it
  float soft_cap;          // scores become cap * tanh(score / cap); 0: off
  HeddleCudaMatrix out;    // [num_tokens, num_heads * head_dim] T
} HeddleCudaPagedAttention;

// The most log-probabilities that `sample` lists for a row. Whoever wants more copies the logits to the host.
#define HEDDLE_CUDA_MAX_LOGPROBS 128

typedef enum {
  kHeddleCudaSampled = 0,
  kHeddleCudaInvalidLogits = 1,  // they hold a NaN or +infinity, or nothing finite
  kHeddleCudaNoTokenAllowed = 2  // lists and penalties leave no token
} HeddleCudaSampleFailure;

// Entries begin to begin + count - 1 of an array.
typedef struct {
  int32_t begin;
  int32_t count;
} HeddleCudaRange;

// How one row is sampled; in device memory, like everything it refers to. Ids outside the vocabulary are ignored.
typedef struct {
  uint64_t seed;
  int64_t history_begin;   // the sequence's tokens are history[history_begin ..]; negative: it has none there
  int32_t position;        // how many tokens stand before the one to sample
  int32_t prompt_len;      // how many of them are the prompt's
  int32_t sequence_index;  // of several that continue one prompt
  int32_t given_token;   // in the vocabulary: nothing is sampled, only its log-probability is wanted; negative: sample
  int32_t num_logprobs;  // list this many of the best; 0: only the rank; negative: neither
  float temperature;     // 0: greedy
  int32_t top_k;         // 0: off
  float top_p;           // in (0, 1]; 1: off
  float min_p;           // in [0, 1]; 0: off
  float repetition_penalty;
  float frequency_penalty;
  float presence_penalty;
  HeddleCudaRange allowed_ids;  // of ids; empty: all are allowed
  HeddleCudaRange banned_ids;   // of ids
  HeddleCudaRange logit_bias;   // of bias_ids and biases; no id twice
} HeddleCudaSampleRow;

typedef struct {
  int32_t token_id;  // sampled or given; 0 after a failure
  float logprob;     // of the model's own distribution; 0 after a failure
  int32_t rank;      // 1 + the number of larger logits; 0 where it was not asked for, and after a failure
  int32_t failure;   // HeddleCudaSampleFailure
} HeddleCudaSampledToken;

// One token a row, by the rules of the core's CPU sampler, and its log-probability. Random numbers are keyed by (seed,
// sequence_index, position): a row's result depends on nothing but the row, to the bit. Where a draw or a cut of top-p
// hangs on the last digits of a sum (one part in a million), it may fall to the other side than on CPU.
//
// In this order: lists as in "allowed, banned, biased"; repetition penalty for tokens in the history, frequency and
// presence penalty for those after the prompt; then temperature, top-k, min-p, top-p and the draw.
//
// Two kernels, or three with log-probabilities, each launched once for as many rows as the workspace has room for: a
// row takes 20 bytes a 256 tokens of the vocabulary, or 1,076 with process_logits, and 1 KiB.
typedef struct {
  HeddleCudaMatrix logits;          // [num_rows, vocab_size] float32; at most 2^20 tokens
  const HeddleCudaSampleRow* rows;  // [num_rows]
  int32_t process_logits;           // 0: no row has lists or penalties, or they are ignored
  const int32_t* ids;
  const int32_t* bias_ids;
  const float* biases;
  // Tokens of sequences. A sampled one is added at history_begin + position.
  int32_t* history;
  int32_t* token_ids;               // [num_rows]: the sampled tokens again, for the next step's embedding
  HeddleCudaSampledToken* sampled;  // [num_rows]
  // The best, the lower id first among equals: a row's first num_logprobs entries, but no more than the vocabulary has.
  int32_t max_logprobs;  // entries a row, up to HEDDLE_CUDA_MAX_LOGPROBS; no row gets more, and none a rank if negative
  int32_t* best_ids;     // [num_rows, max_logprobs]
  float* best_logprobs;  // [num_rows, max_logprobs]
} HeddleCudaSample;

// One rank of a group that NCCL connects: see comm_create.
typedef struct HeddleCudaCommunicator HeddleCudaCommunicator;
// Ranks of one process that reach each other's memory: see peer_group_create.
typedef struct HeddleCudaPeerGroup HeddleCudaPeerGroup;

// How NCCL serves one communicator. -1, and null for the names, leave the choice to NCCL. NCCL's environment variables
// override what is set here, and there are settings that only they make: see nccl_environment.
typedef struct {
  // Ranks of the communicator on this rank's device. More than one needs NCCL 2.30 and NCCL_MULTI_RANK_GPU_ENABLE=1 in
  // the environment; for more than two max_ctas is 4 unless set, because all ranks' blocks must be resident at once.
  // Whatever makes them wait for each other outside their collectives hangs them: set CUDA_MODULE_LOADING=EAGER before
  // the first use of CUDA, since loading a kernel at its first launch waits for the device, and
  // CUDA_DEVICE_MAX_CONNECTIONS=32, so that no rank's kernels queue behind another's.
  int32_t ranks_on_device;
  int32_t min_ctas, max_ctas;         // thread blocks of a collective: 1 to 64
  int32_t cga_cluster_size;           // thread blocks of a cluster: 0 to 8
  int32_t nvls_ctas;                  // thread blocks of a collective that the NVLink switch reduces: 1 to 64
  int32_t cta_policy;                 // 0: fastest; 1: few blocks; 2: copy engines instead of blocks where possible
  int32_t collnet_enable;             // 1: InfiniBand switches reduce; 0: they do not
  int32_t traffic_class;              // of the network: service level (InfiniBand) or type of service (RoCE); from 0
  int32_t channels_per_net_peer;      // 1 to 64; NCCL 2.28
  int32_t nvlink_centric_scheduling;  // 0 or 1; NCCL 2.28
  const char* net_name;               // the network module: "IB", "Socket" or a plugin's
  const char* comm_name;              // in NCCL's logs
} HeddleCudaNcclOptions;

// On `root`, out[:, columns of rank r] = x of rank r, ranks side by side in their order.
typedef struct {
  HeddleCudaMatrix x;      // [num_rows, columns[rank]], any float type
  int32_t root;            // the same on every rank, and so are num_rows and columns
  const int64_t* columns;  // [size] in host memory, read during the call; may be zero
  HeddleCudaMatrix out;    // on root [num_rows, all columns], type of x; ignored elsewhere
} HeddleCudaGatherColumns;

typedef struct {
  // Never null; empty where the calling thread's last call succeeded.
  const char* (*last_error)(void);

  // The number of devices that the driver shows, or kHeddleCudaUnavailable.
  HeddleCudaStatus (*device_count)(int32_t* count);
  HeddleCudaStatus (*device_info)(int32_t device, HeddleCudaDeviceInfo* info);

  // kHeddleCudaUnavailable where the device cannot serve: its compute capability is below 8.0, or cuBLASLt, which is
  // opened at first use (libcublasLt.so.13 or .12, or the file that HEDDLE_CUBLASLT names), is not installed.
  HeddleCudaStatus (*device_check)(int32_t device);
  // kHeddleCudaUnavailable where the library of bitsandbytes cannot be opened, which it is at first use: the file that
  // HEDDLE_BITSANDBYTES_LIBRARY names, else libbitsandbytes_cuda130.so (or the version of CUDA that this was built
  // with) beside this library or where the system looks; or where it lacks a function that is called. Its functions end
  // the process where a launch of theirs fails, and its handle of cuBLAS lives as long as the process.
  HeddleCudaStatus (*bitsandbytes_check)(void);

  // A stream on `device` with a workspace of `workspace_bytes`, taken at once; ops that would need more run in parts or
  // refuse. Calls that wait for the stream's work (stream_synchronize, stream_destroy, the first matmul of a shape) do
  // so for `timeout_us` at most, then kHeddleCudaTimeout. Several streams may share a device, one a rank.
  HeddleCudaStatus (*stream_create)(int32_t device, int64_t workspace_bytes, int64_t timeout_us,
                                    HeddleCudaStream** stream);
  // Waits for the stream. Everything made from it must be gone. Where the wait takes too long, its memory is lost.
  HeddleCudaStatus (*stream_destroy)(HeddleCudaStream* stream);
  HeddleCudaStatus (*stream_synchronize)(HeddleCudaStream* stream);

  // Device memory from a pool that does not synchronise the device; contents unspecified. Ready in stream order.
  HeddleCudaStatus (*allocate)(HeddleCudaStream* stream, int64_t bytes, void** memory);
  HeddleCudaStatus (*free)(HeddleCudaStream* stream, void* memory);
  // Bytes that this process has taken from the stream's device by `allocate` and not given back.
  HeddleCudaStatus (*allocated_bytes)(HeddleCudaStream* stream, int64_t* bytes);
  // Page-locked host memory.
  HeddleCudaStatus (*allocate_host)(HeddleCudaStream* stream, int64_t bytes, void** memory);
  HeddleCudaStatus (*free_host)(HeddleCudaStream* stream, void* memory);
  // In stream order, either way or on the device. Host memory that is not page-locked makes it synchronous.
  HeddleCudaStatus (*copy)(HeddleCudaStream* stream, void* to, const void* from, int64_t bytes);
  // `num_rows` rows of `row_bytes`, strides in bytes.
  HeddleCudaStatus (*copy_2d)(HeddleCudaStream* stream, void* to, int64_t to_stride, const void* from,
                              int64_t from_stride, int64_t row_bytes, int64_t num_rows);
  HeddleCudaStatus (*fill)(HeddleCudaStream* stream, void* memory, int value, int64_t bytes);
  // Normally distributed numbers of this standard deviation, the same for the same seed.
  HeddleCudaStatus (*fill_random)(HeddleCudaStream* stream, HeddleCudaMatrix y, uint64_t seed, float deviation);

  // A point in a stream. Waiting for one blocks the calling thread until `timeout_us`, then kHeddleCudaTimeout; any
  // thread may wait, and one that waits for 0 asks how the device is.
  HeddleCudaStatus (*event_create)(HeddleCudaStream* stream, HeddleCudaEvent** event);
  HeddleCudaStatus (*event_destroy)(HeddleCudaEvent* event);
  HeddleCudaStatus (*event_record)(HeddleCudaStream* stream, HeddleCudaEvent* event);
  HeddleCudaStatus (*event_wait)(HeddleCudaEvent* event, int64_t timeout_us);
  HeddleCudaStatus (*event_elapsed)(HeddleCudaEvent* from, HeddleCudaEvent* to, double* seconds);

  // What is launched between begin and end is recorded instead of run. A call that fails in between spoils the capture:
  // capture_end then fails too and leaves the stream usable.
  HeddleCudaStatus (*capture_begin)(HeddleCudaStream* stream);
  HeddleCudaStatus (*capture_end)(HeddleCudaStream* stream, HeddleCudaGraph** graph);
  HeddleCudaStatus (*graph_launch)(HeddleCudaStream* stream, HeddleCudaGraph* graph);
  HeddleCudaStatus (*graph_destroy)(HeddleCudaGraph* graph);

  HeddleCudaStatus (*embedding)(HeddleCudaStream* stream, const HeddleCudaEmbedding* op);
  // ids[i] = sampled[-1 - ids[i]] where ids[i] is negative: tokens of the step before, as `sample` left them.
  HeddleCudaStatus (*fill_sampled)(HeddleCudaStream* stream, int32_t* ids, int64_t num_ids, const int32_t* sampled);
  HeddleCudaStatus (*rms_norm)(HeddleCudaStream* stream, const HeddleCudaRmsNorm* op);
  HeddleCudaStatus (*add_rms_norm)(HeddleCudaStream* stream, const HeddleCudaAddRmsNorm* op);
  HeddleCudaStatus (*add_bias)(HeddleCudaStream* stream, const HeddleCudaAddBias* op);
  HeddleCudaStatus (*matmul)(HeddleCudaStream* stream, const HeddleCudaMatmul* op);
  HeddleCudaStatus (*gated_matmul)(HeddleCudaStream* stream, const HeddleCudaGatedMatmul* op);
  HeddleCudaStatus (*soft_cap)(HeddleCudaStream* stream, const HeddleCudaSoftCap* op);
  HeddleCudaStatus (*gather_rows)(HeddleCudaStream* stream, const HeddleCudaGatherRows* op);
  HeddleCudaStatus (*rotate_and_store)(HeddleCudaStream* stream, const HeddleCudaRotateAndStore* op);
  HeddleCudaStatus (*paged_attention)(HeddleCudaStream* stream, const HeddleCudaPagedAttention* op);

  // NCCL's version, as 23007 for 2.30.7. It is opened at first use: libnccl.so.2, or the file that HEDDLE_NCCL names.
  // kHeddleCudaUnavailable where that fails or the library is older than 2.27.
  HeddleCudaStatus (*nccl_version)(int32_t* version);
  // What the ranks of one group find each other by: made once and given to every rank's comm_create.
  HeddleCudaStatus (*comm_unique_id)(char id[128]);
  // What a variable whose name begins with NCCL_ was when the process first used NCCL, by comm_unique_id or by this;
  // null where there was none. NCCL reads most of its variables then, and never again. Lives as long as the process.
  HeddleCudaStatus (*nccl_environment)(const char* name, const char** value);
  // A communicator for `rank` of `size` on the stream's device; every later call of the rank uses this stream or
  // another one of the device. No wait of the communicator takes longer than `timeout_us` (kHeddleCudaTimeout); one
  // that does aborts it. Waits for nobody itself; comm_connect does, for every rank to call it, and comes before
  // everything else. While ranks connect, none of a device may wait for another's in a kernel.
  HeddleCudaStatus (*comm_create)(HeddleCudaStream* stream, const char id[128], int32_t size, int32_t rank,
                                  const HeddleCudaNcclOptions* options, int64_t timeout_us,
                                  HeddleCudaCommunicator** comm);
  HeddleCudaStatus (*comm_connect)(HeddleCudaCommunicator* comm);
  // Graphs that captured its collectives must be gone. Ranks destroy theirs at the same time, or have aborted them;
  // waits for collectives under way. Where that misses the deadline the communicator is aborted, and if even then
  // something holds on to it, its memory is lost and the answer is kHeddleCudaTimeout.
  HeddleCudaStatus (*comm_destroy)(HeddleCudaCommunicator* comm);
  // Makes present and future calls and collectives of this rank fail with kHeddleCudaAborted; kernels that wait for
  // peers end, with unspecified results. Every rank must abort its own. Any thread, any time before comm_destroy
  // begins; returns at once.
  HeddleCudaStatus (*comm_abort)(HeddleCudaCommunicator* comm);
  // How the communicator is: kHeddleCudaOk, kHeddleCudaTimeout, kHeddleCudaAborted, kHeddleCudaSticky, or
  // kHeddleCudaFailed, also where a peer or the network was lost (and then the communicator was aborted). Collectives
  // that are launched on a broken communicator end without saying so: ask this after every wait for their results. Any
  // thread.
  HeddleCudaStatus (*comm_async_error)(HeddleCudaCommunicator* comm);
  // Wait until every rank has called it: not in a graph. comm_exchange also hands each rank's number to all of them,
  // in values[size].
  HeddleCudaStatus (*barrier)(HeddleCudaStream* stream, HeddleCudaCommunicator* comm);
  HeddleCudaStatus (*comm_exchange)(HeddleCudaStream* stream, HeddleCudaCommunicator* comm, int64_t value,
                                    int64_t* values);
  // x = sum over ranks of x, the same on every rank. Any float type, in which NCCL rounds partial sums too; no gaps
  // between rows.
  HeddleCudaStatus (*all_reduce_sum)(HeddleCudaStream* stream, HeddleCudaCommunicator* comm, HeddleCudaMatrix x);
  // Takes up to 16 MiB of workspace, on every rank alike; none for a single row. What a rank's arguments are refused
  // for, its peers do not know: they wait for it until their deadline, or an abort.
  HeddleCudaStatus (*gather_columns)(HeddleCudaStream* stream, HeddleCudaCommunicator* comm,
                                     const HeddleCudaGatherColumns* op);
  // `bytes` bytes of `root`, which is the same on every rank, to all.
  HeddleCudaStatus (*broadcast)(HeddleCudaStream* stream, HeddleCudaCommunicator* comm, int32_t root, void* data,
                                int64_t bytes);

  // All-reduce in one kernel for small messages, among 2, 4 or 8 ranks of one process on one device or on devices that
  // reach each other's memory (else kHeddleCudaUnavailable). Rank r uses streams[r] or another one of its device, and
  // all ranks make the same calls in the same order. A message has at most `max_bytes`, each row filled up to 16 bytes.
  // A kernel that waits for its peers longer than `timeout_us` ends with unspecified results, and the group is broken.
  // Making and destroying a group wait for the devices: the streams must be idle, and no other rank's kernel may wait
  // for a peer. Making one fails with kHeddleCudaTimeout where a stream does not end its work, and then the memory is
  // lost. Graphs and streams that use the group must have ended before it is destroyed, which has no deadline. For
  // ranks that share a device, see ranks_on_device.
  HeddleCudaStatus (*peer_group_create)(HeddleCudaStream* const* streams, int32_t size, int64_t max_bytes,
                                        int64_t timeout_us, HeddleCudaPeerGroup** group);
  HeddleCudaStatus (*peer_group_destroy)(HeddleCudaPeerGroup* group);
  // Ends all ranks' waits within a millisecond. Any thread.
  HeddleCudaStatus (*peer_group_abort)(HeddleCudaPeerGroup* group);
  // As comm_async_error. Any thread.
  HeddleCudaStatus (*peer_group_async_error)(HeddleCudaPeerGroup* group);
  // x = sum over ranks of x, rounded once, ranks joined in a balanced binary tree: the same bits on every rank. No gaps
  // between rows.
  HeddleCudaStatus (*one_shot_all_reduce_sum)(HeddleCudaStream* stream, HeddleCudaPeerGroup* group, int32_t rank,
                                              HeddleCudaMatrix x);
  // add_rms_norm with x summed over ranks, and not rounded in between. weight begins on 16 bytes.
  HeddleCudaStatus (*one_shot_all_reduce_add_rms_norm)(HeddleCudaStream* stream, HeddleCudaPeerGroup* group,
                                                       int32_t rank, const HeddleCudaAddRmsNorm* op);

  HeddleCudaStatus (*sample)(HeddleCudaStream* stream, const HeddleCudaSample* op);
} HeddleCudaApi;

// The table, or null when the library is of another version.
const HeddleCudaApi* HeddleCudaGetApi(int32_t version);

#ifdef __cplusplus
}
#endif
