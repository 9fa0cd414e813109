#include "napi/convert.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace heddle {
namespace {

[[noreturn]] void RefuseType(const std::string& key, const char* expectation) {
  throw Error(ErrorCode::kInvalidArgument, key + " must be " + expectation);
}

double Number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) RefuseType(key, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

template <typename Integer>
Integer Int(const Napi::Object& object, const char* key) {
  const double value = Number(object, key);
  constexpr double kMaxSafe = 9007199254740991.0;
  const double min = std::max(-kMaxSafe, static_cast<double>(std::numeric_limits<Integer>::min()));
  const double max = std::min(kMaxSafe, static_cast<double>(std::numeric_limits<Integer>::max()));
  if (!(value >= min && value <= max) || value != std::floor(value)) RefuseType(key, "an integer in range");
  return static_cast<Integer>(value);
}

// A positive number that no float is small enough for becomes the smallest one: 0 often means something else.
float Float(const Napi::Object& object, const char* key) {
  const double value = Number(object, key);
  const auto rounded = static_cast<float>(value);
  return value > 0 && rounded == 0 ? std::numeric_limits<float>::denorm_min() : rounded;
}

bool Bool(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsBoolean()) RefuseType(key, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string Text(const Napi::Value& value, const char* key) {
  if (!value.IsString()) RefuseType(key, "a string");
  return value.As<Napi::String>().Utf8Value();
}

std::string Text(const Napi::Object& object, const char* key) { return Text(object.Get(key), key); }

Napi::Object Child(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsObject()) RefuseType(key, "an object");
  return value.As<Napi::Object>();
}

Napi::Array List(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) RefuseType(key, "an array");
  return value.As<Napi::Array>();
}

template <typename TypedArray>
TypedArray Typed(const Napi::Value& value, const char* key, napi_typedarray_type type) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    RefuseType(key, "a typed array of the declared type");
  }
  return value.As<TypedArray>();
}

DType ToFloatType(const std::string& name, const char* key) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (name == DTypeName(dtype)) return dtype;
  }
  RefuseType(key, "auto, float32, bfloat16 or float16");
}

DType ToKVCacheDType(const std::string& name) {
  return name == DTypeName(DType::kInt8) ? DType::kInt8 : ToFloatType(name, "kvCacheDtype");
}

Quantization ToQuantization(const std::string& name) {
  for (Quantization quantization :
       {Quantization::kAuto, Quantization::kNone, Quantization::kInt8, Quantization::kLlmInt8, Quantization::kW8A8}) {
    if (name == QuantizationName(quantization)) return quantization;
  }
  RefuseType("quantization", "auto, none, int8, llm-int8 or w8a8");
}

std::vector<int32_t> Ids(const Napi::Object& object, const char* key) { return ToInt32Vector(object.Get(key), key); }

SamplingParams ToSamplingParams(const Napi::Object& object) {
  SamplingParams params;
  params.n = Int<int>(object, "n");
  params.temperature = Float(object, "temperature");
  params.top_p = Float(object, "topP");
  params.top_k = Int<int>(object, "topK");
  params.min_p = Float(object, "minP");
  params.presence_penalty = Float(object, "presencePenalty");
  params.frequency_penalty = Float(object, "frequencyPenalty");
  params.repetition_penalty = Float(object, "repetitionPenalty");
  params.max_tokens = Int<int>(object, "maxTokens");
  params.min_tokens = Int<int>(object, "minTokens");
  params.ignore_eos = Bool(object, "ignoreEos");
  const Napi::Array stop = List(object, "stop");
  for (uint32_t i = 0; i < stop.Length(); ++i) params.stop.push_back(Text(stop.Get(i), "stop"));
  params.stop_token_ids = Ids(object, "stopTokenIds");
  params.include_stop_str_in_output = Bool(object, "includeStopStrInOutput");
  params.logprobs = Int<int>(object, "logprobs");
  params.prompt_logprobs = Int<int>(object, "promptLogprobs");

  const std::vector<int32_t> bias_ids = Ids(object, "logitBiasIds");
  const auto biases = Typed<Napi::Float32Array>(object.Get("logitBiasValues"), "logitBiasValues", napi_float32_array);
  if (biases.ElementLength() != bias_ids.size()) RefuseType("logitBiasValues", "as long as logitBiasIds");
  for (size_t i = 0; i < bias_ids.size(); ++i) params.logit_bias.emplace_back(bias_ids[i], biases[i]);

  params.allowed_token_ids = Ids(object, "allowedTokenIds");
  const Napi::Array bad_words = List(object, "badWords");
  for (uint32_t i = 0; i < bad_words.Length(); ++i) {
    params.bad_words.push_back(ToInt32Vector(bad_words.Get(i), "badWords"));
  }
  const Napi::Object repetition = Child(object, "repetitionDetection");
  params.repetition_detection = {Int<int>(repetition, "maxPatternSize"), Int<int>(repetition, "minPatternSize"),
                                 Int<int>(repetition, "minCount")};
  params.detokenize = Bool(object, "detokenize");
  params.skip_special_tokens = Bool(object, "skipSpecialTokens");
  params.stream_interval = Int<int>(object, "streamInterval");
  params.final_only = Bool(object, "finalOnly");
  params.skip_reading_prefix_cache = Bool(object, "skipReadingPrefixCache");
  return params;
}

NcclOptions ToNcclOptions(const Napi::Object& object) {
  NcclOptions options;
  options.min_ctas = Int<int>(object, "minCtas");
  options.max_ctas = Int<int>(object, "maxCtas");
  options.cga_cluster_size = Int<int>(object, "cgaClusterSize");
  options.nvls_ctas = Int<int>(object, "nvlsCtas");
  options.cta_policy = Int<int>(object, "ctaPolicy");
  options.collnet_enable = Int<int>(object, "collnetEnable");
  options.traffic_class = Int<int>(object, "trafficClass");
  options.channels_per_net_peer = Int<int>(object, "channelsPerNetPeer");
  options.nvlink_centric_scheduling = Int<int>(object, "nvlinkCentricScheduling");
  options.net_name = Text(object, "netName");
  options.comm_name = Text(object, "commName");
  const Napi::Object environment = Child(object, "environment");
  const Napi::Array names = environment.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = Text(names.Get(i), "environment");
    options.environment[name] = Text(environment, name.c_str());
  }
  return options;
}

template <typename TypedArray, typename T>
TypedArray NewTyped(Napi::Env env, std::span<const T> values) {
  TypedArray array = TypedArray::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

template <typename TypedArray, typename T>
TypedArray NewTyped(Napi::Env env, const std::vector<T>& values) {
  return NewTyped<TypedArray>(env, std::span<const T>(values));
}

Napi::Number NewNumber(Napi::Env env, double value) { return Napi::Number::New(env, value); }

Napi::Object FromLogprobs(Napi::Env env, const LogprobsData& logprobs) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("k", NewNumber(env, logprobs.k));
  object.Set("tokenIds", NewTyped<Napi::Int32Array>(env, logprobs.token_ids));
  object.Set("logprobs", NewTyped<Napi::Float32Array>(env, logprobs.logprobs));
  object.Set("ranks", NewTyped<Napi::Int32Array>(env, logprobs.ranks));
  return object;
}

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
    case FinishReason::kError:
    case FinishReason::kNone:
      break;
  }
  return "error";
}

Napi::Object FromDelta(Napi::Env env, const SequenceDelta& delta, std::span<const int32_t> token_ids) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("requestId", NewNumber(env, static_cast<double>(delta.request_id)));
  object.Set("index", NewNumber(env, delta.index));
  object.Set("tokenIds", NewTyped<Napi::Int32Array>(env, token_ids));
  object.Set("text", Napi::String::New(env, delta.text));
  object.Set("logprob", NewNumber(env, delta.logprob));
  if (delta.logprobs != nullptr) object.Set("logprobs", FromLogprobs(env, *delta.logprobs));
  if (delta.prompt_logprobs != nullptr) object.Set("promptLogprobs", FromLogprobs(env, *delta.prompt_logprobs));
  if (delta.num_cached_tokens) object.Set("numCachedTokens", NewNumber(env, *delta.num_cached_tokens));
  if (delta.finish_reason == FinishReason::kNone) return object;

  object.Set("finishReason", FinishReasonName(delta.finish_reason));
  const EndDetail& end = *delta.end;
  if (end.stop_string) object.Set("stopReason", *end.stop_string);
  if (end.stop_token_id) object.Set("stopReason", NewNumber(env, *end.stop_token_id));
  if (end.stopped_by_repetition) object.Set("stopReason", "repetition");
  if (end.error) object.Set("error", FromFailure(env, *end.error));
  return object;
}

Napi::Object FromRank(Napi::Env env, const RankStats& rank) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("rank", NewNumber(env, rank.rank));
  object.Set("numHeads", NewNumber(env, rank.num_heads));
  object.Set("numKVHeads", NewNumber(env, rank.num_kv_heads));
  object.Set("weightBytes", NewNumber(env, static_cast<double>(rank.weight_bytes)));
  object.Set("weightsFromCache", Napi::Boolean::New(env, rank.weights_from_cache));
  object.Set("kvCacheBytes", NewNumber(env, static_cast<double>(rank.kv_cache_bytes)));
  object.Set("busySeconds", NewNumber(env, rank.busy_seconds));
  object.Set("opsSeconds", NewNumber(env, rank.ops_seconds));
  object.Set("communicationSeconds", NewNumber(env, rank.communication_seconds));
  object.Set("deviceWaitSeconds", NewNumber(env, rank.device_wait_seconds));
  object.Set("deviceIdleSeconds", NewNumber(env, rank.device_idle_seconds));
  return object;
}

}  // namespace

std::vector<int32_t> ToInt32Vector(const Napi::Value& value, const char* key) {
  const auto array = Typed<Napi::Int32Array>(value, key, napi_int32_array);
  return {array.Data(), array.Data() + array.ElementLength()};
}

EngineConfig ToEngineConfig(const Napi::Object& object) {
  EngineConfig config;
  config.model = Text(object, "model");
  const std::string device = Text(object, "device");
  config.device_auto = device == "auto";
  config.device = device == "cuda" ? DeviceType::kCuda : DeviceType::kCpu;
  config.devices = Ids(object, "devices");
  config.gpu_memory_utilization = Number(object, "gpuMemoryUtilization");
  const std::string communicator = Text(object, "communicator");
  config.communicator = communicator == "nccl"    ? CommunicatorType::kNccl
                        : communicator == "local" ? CommunicatorType::kLocal
                                                  : CommunicatorType::kAuto;
  config.nccl = ToNcclOptions(Child(object, "nccl"));
  config.custom_all_reduce = Bool(object, "customAllReduce");
  config.load_format = Text(object, "loadFormat") == "dummy" ? LoadFormat::kDummy : LoadFormat::kSafetensors;
  config.packed_weights = Text(object, "packedWeights");
  const std::string dtype = Text(object, "dtype");
  config.dtype_auto = dtype == "auto";
  if (!config.dtype_auto) config.dtype = ToFloatType(dtype, "dtype");
  config.quantization = ToQuantization(Text(object, "quantization"));
  const std::string sparsity = Text(object, "sparsity");
  if (sparsity != "auto" && sparsity != "none" && sparsity != "2:4") RefuseType("sparsity", "auto, none or 2:4");
  config.sparsity = sparsity == "2:4" ? Sparsity::k24 : sparsity == "none" ? Sparsity::kNone : Sparsity::kAuto;
  const std::string provider = Text(object, "provider");
  if (provider != "heddle" && provider != "bitsandbytes") RefuseType("provider", "heddle or bitsandbytes");
  config.provider = provider == "heddle" ? Provider::kHeddle : Provider::kBitsAndBytes;
  const std::string kv_cache_dtype = Text(object, "kvCacheDtype");
  config.kv_cache_dtype_auto = kv_cache_dtype == "auto";
  if (!config.kv_cache_dtype_auto) config.kv_cache_dtype = ToKVCacheDType(kv_cache_dtype);
  config.kv_cache_bytes = Int<int64_t>(object, "kvCacheBytes");
  config.block_size = Int<int>(object, "blockSize");
  config.max_model_len = Int<int>(object, "maxModelLen");
  config.max_num_seqs = Int<int>(object, "maxNumSeqs");
  config.max_num_batched_tokens = Int<int>(object, "maxNumBatchedTokens");
  config.max_num_waiting = Int<int>(object, "maxNumWaiting");
  config.enable_prefix_caching = Bool(object, "enablePrefixCaching");
  config.scheduling_policy =
      Text(object, "schedulingPolicy") == "priority" ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs;
  config.seed = Int<uint64_t>(object, "seed");
  config.max_logprobs = Int<int>(object, "maxLogprobs");
  config.tensor_parallel_size = Int<int>(object, "tensorParallelSize");
  config.threads_per_rank = Int<int>(object, "threads");
  config.comm_timeout_ms = Int<int64_t>(object, "timeoutMs");
  config.cpu_isa = Text(object, "cpuIsa");
  config.eos_token_ids = Ids(object, "eosTokenIds");
  return config;
}

std::shared_ptr<const Vocabulary> ToVocabulary(const Napi::Value& value) {
  if (value.IsNull()) return nullptr;
  if (!value.IsObject()) RefuseType("vocabulary", "an object or null");
  const Napi::Object object = value.As<Napi::Object>();
  const auto bytes = Typed<Napi::Uint8Array>(object.Get("bytes"), "bytes", napi_uint8_array);
  const auto offsets = Typed<Napi::Uint32Array>(object.Get("offsets"), "offsets", napi_uint32_array);
  const auto special = Typed<Napi::Uint8Array>(object.Get("special"), "special", napi_uint8_array);
  const std::vector<uint32_t> bounds(offsets.Data(), offsets.Data() + offsets.ElementLength());
  if (bounds.size() != special.ElementLength() + 1 || bounds.front() != 0 || bounds.back() != bytes.ElementLength() ||
      !std::is_sorted(bounds.begin(), bounds.end())) {
    RefuseType("vocabulary.offsets", "ascending from 0 to the number of bytes, one longer than special");
  }
  return std::make_shared<const Vocabulary>(
      std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ElementLength()), bounds,
      std::vector<uint8_t>(special.Data(), special.Data() + special.ElementLength()));
}

Request ToRequest(const Napi::Object& object, bool* derive_seed) {
  Request request;
  request.prompt_token_ids = Ids(object, "promptTokenIds");
  request.priority = Int<int>(object, "priority");
  request.cache_salt = Text(object, "cacheSalt");
  const Napi::Object params = Child(object, "params");
  request.sampling_params = ToSamplingParams(params);
  const Napi::Value seed = params.Get("seed");
  *derive_seed = seed.IsNull();
  if (!seed.IsNull()) {
    if (!seed.IsBigInt()) RefuseType("seed", "a bigint or null");
    bool lossless = false;
    request.sampling_params.seed = seed.As<Napi::BigInt>().Uint64Value(&lossless);
    if (!lossless) RefuseType("seed", "from 0 to 2^64 - 1");
  }
  return request;
}

Napi::Object FromFailure(Napi::Env env, const EngineFailure& failure) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", ErrorCodeName(failure.code));
  object.Set("message", failure.message);
  return object;
}

Napi::Object FromOutput(Napi::Env env, const EngineOutput& output) {
  Napi::Array deltas = Napi::Array::New(env, output.deltas.size());
  std::span<const int32_t> token_ids = output.token_ids;
  for (size_t i = 0; i < output.deltas.size(); ++i) {
    // A scope each: a coalesced step may carry thousands of deltas.
    const Napi::HandleScope scope(env);
    const auto num_tokens = static_cast<size_t>(output.deltas[i].num_tokens);
    deltas.Set(static_cast<uint32_t>(i), FromDelta(env, output.deltas[i], token_ids.first(num_tokens)));
    token_ids = token_ids.subspan(num_tokens);
  }
  Napi::Array started = Napi::Array::New(env, output.started.size());
  for (size_t i = 0; i < output.started.size(); ++i) {
    started.Set(static_cast<uint32_t>(i), NewNumber(env, static_cast<double>(output.started[i])));
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("deltas", deltas);
  object.Set("startedRequestIds", started);
  object.Set("stepSeconds", NewTyped<Napi::Float64Array>(env, output.step_seconds));
  object.Set("stepTokens", NewTyped<Napi::Int32Array>(env, output.step_tokens));
  if (output.failure) object.Set("failure", FromFailure(env, *output.failure));
  return object;
}

Napi::Object FromInfo(Napi::Env env, const EngineInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("architecture", info.architecture);
  object.Set("vocabSize", NewNumber(env, info.vocab_size));
  object.Set("maxModelLen", NewNumber(env, info.max_model_len));
  object.Set("dtype", DTypeName(info.dtype));
  object.Set("quantization", QuantizationName(info.quantization));
  object.Set("kvCacheDtype", DTypeName(info.kv_cache_dtype));
  object.Set("blockSize", NewNumber(env, info.block_size));
  object.Set("numBlocks", NewNumber(env, info.num_blocks));
  object.Set("cpuIsa", CpuIsaName(info.isa));
  object.Set("device", DeviceTypeName(info.device));
  object.Set("eosTokenIds", NewTyped<Napi::Int32Array>(env, info.eos_token_ids));
  return object;
}

Napi::Object FromStats(Napi::Env env, const EngineStats& stats, int64_t callbacks) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("numRunning", NewNumber(env, stats.scheduler.num_running));
  object.Set("numWaiting", NewNumber(env, stats.scheduler.num_waiting));
  object.Set("numFreeBlocks", NewNumber(env, stats.scheduler.num_free_blocks));
  object.Set("numTotalBlocks", NewNumber(env, stats.scheduler.num_total_blocks));
  object.Set("prefixCacheQueries", NewNumber(env, static_cast<double>(stats.scheduler.prefix_cache_queries)));
  object.Set("prefixCacheHits", NewNumber(env, static_cast<double>(stats.scheduler.prefix_cache_hits)));
  object.Set("numPreemptions", NewNumber(env, static_cast<double>(stats.scheduler.num_preemptions)));
  object.Set("promptTokens", NewNumber(env, static_cast<double>(stats.num_prompt_tokens)));
  object.Set("generatedTokens", NewNumber(env, static_cast<double>(stats.num_generated_tokens)));
  object.Set("steps", NewNumber(env, static_cast<double>(stats.num_steps)));
  object.Set("stepSeconds", NewNumber(env, stats.step_seconds));
  object.Set("callbacks", NewNumber(env, static_cast<double>(callbacks)));
  const std::chrono::duration<double, std::milli> age = std::chrono::steady_clock::now() - stats.last_step;
  object.Set("lastStepAgeMs", NewNumber(env, age.count()));
  Napi::Array ranks = Napi::Array::New(env, stats.ranks.size());
  for (size_t i = 0; i < stats.ranks.size(); ++i) ranks.Set(static_cast<uint32_t>(i), FromRank(env, stats.ranks[i]));
  object.Set("ranks", ranks);
  return object;
}

Napi::Object FromPlan(Napi::Env env, const EnginePlan& plan) {
  Napi::Array ranks = Napi::Array::New(env, plan.ranks.size());
  for (size_t i = 0; i < plan.ranks.size(); ++i) {
    Napi::Object rank = Napi::Object::New(env);
    rank.Set("weightBytes", NewNumber(env, static_cast<double>(plan.ranks[i].weight_bytes)));
    rank.Set("kvCacheBytes", NewNumber(env, static_cast<double>(plan.ranks[i].kv_cache_bytes)));
    rank.Set("activationBytes", NewNumber(env, static_cast<double>(plan.ranks[i].activation_bytes)));
    ranks.Set(static_cast<uint32_t>(i), rank);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("ranks", ranks);
  object.Set("availableBytes", NewNumber(env, static_cast<double>(plan.available_bytes())));
  object.Set("fits", Napi::Boolean::New(env, plan.fits()));
  object.Set("kvCacheTokens", NewNumber(env, static_cast<double>(plan.kv_cache_tokens())));
  object.Set("kvCacheBytesPerToken", NewNumber(env, static_cast<double>(plan.kv_cache_bytes_per_token())));
  object.Set("maxModelLen", NewNumber(env, plan.scheduler.max_model_len));
  return object;
}

CompressionOptions ToCompressionOptions(const Napi::Object& object) {
  CompressionOptions options;
  options.model = Text(object, "model");
  options.output = Text(object, "output");
  const std::string scheme = Text(object, "scheme");
  options.scheme = scheme == "int8"   ? CompressionScheme::kInt8
                   : scheme == "w8a8" ? CompressionScheme::kW8A8
                                      : CompressionScheme::kNone;
  const std::string pruning = Text(object, "pruning");
  options.pruning = pruning == "magnitude"   ? PruningMethod::kMagnitude
                    : pruning == "wanda"     ? PruningMethod::kWanda
                    : pruning == "sparsegpt" ? PruningMethod::kSparseGpt
                                             : PruningMethod::kNone;
  options.dense = Bool(object, "dense");
  options.smooth = Float(object, "smooth");
  const Napi::Array ignore = List(object, "ignore");
  for (uint32_t i = 0; i < ignore.Length(); ++i) options.ignore.push_back(Text(ignore.Get(i), "ignore"));
  const Napi::Array sequences = List(object, "sequences");
  for (uint32_t i = 0; i < sequences.Length(); ++i) {
    options.sequences.push_back(ToInt32Vector(sequences.Get(i), "sequences"));
  }
  options.memory_bytes = Int<int64_t>(object, "memoryBytes");
  options.threads = Int<int>(object, "threads");
  options.cpu_isa = Text(object, "cpuIsa");
  return options;
}

Napi::Object FromReport(Napi::Env env, const CompressionReport& report) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("numMatrices", NewNumber(env, report.num_matrices));
  object.Set("numSparse", NewNumber(env, report.num_sparse));
  object.Set("numPasses", NewNumber(env, report.num_passes));
  object.Set("sourceBytes", NewNumber(env, static_cast<double>(report.source_bytes)));
  object.Set("outputBytes", NewNumber(env, static_cast<double>(report.output_bytes)));
  object.Set("memoryBytes", NewNumber(env, static_cast<double>(report.memory_bytes)));
  Napi::Array removed = Napi::Array::New(env, report.removed.size());
  for (size_t i = 0; i < report.removed.size(); ++i) removed.Set(static_cast<uint32_t>(i), report.removed[i]);
  object.Set("removed", removed);
  return object;
}

}  // namespace heddle
