#include "engine/engine_plan.h"

#include "device/host_memory.h"
#include "fake_cuda.h"
#include "temp_folder.h"
#include "test.h"

namespace heddle {
namespace {

// A folder with a small config.json.
struct Model {
  explicit Model(const std::string& members = "", const std::string& dtype = "bfloat16") {
    folder.Write("config.json",
                 R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":160,"vocab_size":512,)"
                 R"("num_hidden_layers":2,"num_attention_heads":8,"num_key_value_heads":8,"head_dim":16,)"
                 R"("max_position_embeddings":2048,"dtype":")" +
                     dtype + "\"" + members + "}");
    config.model = folder.path();
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = 64;
    config.max_num_waiting = 16;
    config.comm_timeout_ms = 1000;
    config.device = DeviceType::kCpu;
    config.device_auto = false;
  }

  test::TempFolder folder;
  EngineConfig config;
};

TEST(EnginePlan, "shares the available processors among the ranks, at least one each") {
  Model model;
  for (const int size : {1, 2, 4, 8}) {
    model.config.tensor_parallel_size = size;
    const EnginePlan plan = PlanEngine(model.config);
    EXPECT_EQ(plan.worker.threads, std::max(1, NumAvailableProcessors() / size));
    EXPECT_EQ(plan.worker.oversubscribed, size > NumAvailableProcessors());
  }
  model.config.threads_per_rank = 64;
  EXPECT_EQ(PlanEngine(model.config).worker.threads, 64);
}

TEST(EnginePlan, "serves the length that RoPE scaling reaches, and refuses more") {
  Model model(R"(,"rope_scaling":{"rope_type":"yarn","factor":4.0})");
  EXPECT_EQ(PlanEngine(model.config).scheduler.max_model_len, 8192);
  model.config.max_model_len = 8193;
  EXPECT_ERROR(ErrorCode::kInvalidArgument, PlanEngine(model.config));
}

TEST(EnginePlan, "counts rotary tables for the positions that are served, not for those a config promises") {
  Model model(R"(,"rope_scaling":{"rope_type":"linear","factor":40000})");
  model.config.kv_cache_bytes = int64_t{1} << 20;
  const EnginePlan plan = PlanEngine(model.config);
  EXPECT_TRUE(plan.scheduler.max_model_len < 10'000);
  EXPECT_TRUE(plan.ranks[0].activation_bytes < int64_t{4} << 20);
}

TEST(EnginePlan, "counts rotary tables and what collectives keep as activations") {
  Model model;
  model.config.max_model_len = 1024;
  const int64_t alone = PlanEngine(model.config).ranks[0].activation_bytes;
  model.config.max_model_len = 2048;
  EXPECT_EQ(PlanEngine(model.config).ranks[0].activation_bytes - alone, 1024 * 16 * 4);
  model.config.max_model_len = 1024;
  model.config.tensor_parallel_size = 2;
  EXPECT_TRUE(PlanEngine(model.config).ranks[1].activation_bytes > 2 * 64 * 64 * 4);
}

TEST(EnginePlan, "counts what graphs, histories and lists of log-probabilities may come to take of a GPU") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fake.serves_models = true;
  Model model;
  model.config.device = DeviceType::kCuda;
  model.config.max_num_seqs = 50;
  model.config.max_model_len = 1024;
  const int64_t bytes = PlanEngine(model.config).ranks[0].activation_bytes;
  EXPECT_TRUE(bytes > Worker::kCudaWorkspaceBytes + DecodeGraphs::DeviceBytes(2) +
                          DeviceSampler::DeviceBytes(
                              {.max_rows = 50, .max_model_len = 1024, .vocab_size = HEDDLE_CUDA_MAX_LOGPROBS}));
  model.config.max_model_len = 2048;
  // Angles, histories, and twice as wide a block table.
  EXPECT_EQ(PlanEngine(model.config).ranks[0].activation_bytes - bytes, 1024 * 16 * 4 + 50 * 1024 * 4 + 50 * 64 * 4);
  fake.serves_models = false;
}

TEST(EnginePlan, "counts what a GPU works in for the sequences that its cache holds, not for those a config promises") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fake.serves_models = true;
  Model model(R"(,"rope_scaling":{"rope_type":"linear","factor":40000})");
  model.config.device = DeviceType::kCuda;
  model.config.kv_cache_bytes = int64_t{1} << 20;
  const EnginePlan shrunk = PlanEngine(model.config);
  EXPECT_TRUE(shrunk.scheduler.max_model_len < 10'000);
  model.config.max_model_len = shrunk.scheduler.max_model_len;
  EXPECT_EQ(shrunk.ranks[0].activation_bytes, PlanEngine(model.config).ranks[0].activation_bytes);
  fake.serves_models = false;
}

TEST(EnginePlan, "widens int8 weights for float32 on a GPU, and refuses what was asked for instead") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fake.serves_models = true;
  Model model(R"(,"quantization_config":{"quant_method":"bitsandbytes","load_in_8bit":true})");
  const auto quantization = [&] { return PlanEngine(model.config).worker.formats.quantization(); };
  EXPECT_TRUE(quantization() == Quantization::kLlmInt8);
  model.config.device = DeviceType::kCuda;
  EXPECT_TRUE(quantization() == Quantization::kLlmInt8);
  model.config.dtype_auto = false;
  EXPECT_TRUE(quantization() == Quantization::kNone);
  model.config.quantization = Quantization::kInt8;
  std::string message;
  try {
    static_cast<void>(quantization());
  } catch (const Error& error) {
    message = error.what();
  }
  fake.serves_models = false;
  EXPECT_EQ(message, "quantization must be \"none\" in float32 on device 'cuda', received \"int8\"");
}

// What is said where `config` is refused as the caller's mistake; empty where it is not.
std::string Refusal(const EngineConfig& config) {
  try {
    PlanEngine(config);
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(EnginePlan, "lets bitsandbytes compute LLM.int8 products of linear layers on a GPU, given or the checkpoint's") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fake.serves_models = fake.has_bitsandbytes = true;
  for (const bool stored : {false, true}) {
    Model model(stored ? R"(,"quantization_config":{"quant_method":"bitsandbytes","load_in_8bit":true})" : "");
    model.config.device_auto = true;
    model.config.provider = Provider::kBitsAndBytes;
    if (!stored) model.config.quantization = Quantization::kLlmInt8;
    const WeightFormats formats = PlanEngine(model.config).worker.formats;
    EXPECT_TRUE(formats.Linear({"model.layers.0.mlp.down_proj"}, 160, 8).provider == Provider::kBitsAndBytes);
    EXPECT_TRUE(formats.Head("lm_head").provider == Provider::kHeddle);
  }
  fake.serves_models = fake.has_bitsandbytes = false;
}

TEST(EnginePlan, "refuses bitsandbytes where it computes nothing, and where its library is missing") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fake.serves_models = fake.has_bitsandbytes = true;
  Model model;
  model.config.provider = Provider::kBitsAndBytes;
  model.config.quantization = Quantization::kLlmInt8;
  EXPECT_EQ(Refusal(model.config), R"(provider must be "heddle" on device 'cpu', received "bitsandbytes")");
  model.config.device = DeviceType::kCuda;
  EXPECT_EQ(Refusal(model.config), "");
  model.config.sparsity = Sparsity::k24;
  EXPECT_EQ(Refusal(model.config),
            R"(provider must be "heddle" where matrices are 2:4 sparse, received "bitsandbytes")");
  model.config.sparsity = Sparsity::kAuto;
  // Of a checkpoint of floats.
  model.config.quantization = Quantization::kAuto;
  EXPECT_EQ(Refusal(model.config),
            R"(provider must be "heddle" where quantization is "none", received "bitsandbytes")");
  Model of_floats32(R"(,"quantization_config":{"quant_method":"bitsandbytes","load_in_8bit":true})", "float32");
  of_floats32.config.device = DeviceType::kCuda;
  of_floats32.config.provider = Provider::kBitsAndBytes;
  EXPECT_EQ(Refusal(of_floats32.config), R"(provider must be "heddle" with dtype "float32", received "bitsandbytes")");
  model.config.quantization = Quantization::kLlmInt8;
  fake.has_bitsandbytes = false;
  EXPECT_EQ(Refusal(model.config), "a fake device lacks bitsandbytes");
  // Not the CPU instead.
  model.config.device_auto = true;
  EXPECT_EQ(Refusal(model.config), "a fake device lacks bitsandbytes");
  fake.serves_models = false;
  EXPECT_EQ(Refusal(model.config), "a fake device serves no model");
}

TEST(EnginePlan, "knows what a token takes of the KV cache, of all ranks together") {
  Model model;
  for (const int size : {1, 2, 4, 8}) {
    model.config.tensor_parallel_size = size;
    EXPECT_EQ(PlanEngine(model.config).kv_cache_bytes_per_token(), 2 * 2 * 8 * 16 * 2);
  }
}

TEST(EnginePlan, "counts the scales of an int8 KV cache, four bytes a head of keys or values") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fake.serves_models = true;
  for (const DeviceType device : {DeviceType::kCpu, DeviceType::kCuda}) {
    Model model;
    model.config.device_auto = false;
    model.config.device = device;
    model.config.kv_cache_dtype_auto = false;
    model.config.kv_cache_dtype = DType::kInt8;
    for (const int size : {1, 2, 4, 8}) {
      if (device == DeviceType::kCuda && size > test::kNumFakeDevices) break;
      model.config.tensor_parallel_size = size;
      EXPECT_EQ(PlanEngine(model.config).kv_cache_bytes_per_token(), 2 * 2 * 8 * (16 + 4));
    }
  }
  fake.serves_models = false;
}

TEST(EnginePlan, "names the bytes that were given when they hold no sequence") {
  Model model;
  model.config.max_model_len = 32;
  model.config.kv_cache_bytes = 1;
  std::string message;
  try {
    PlanEngine(model.config);
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == ErrorCode::kInsufficientMemory);
    message = error.what();
  }
  // A block of 16 tokens: 2 layers, 8 heads of 16, keys and values of 2 bytes; one block beside the two of the
  // sequence.
  EXPECT_EQ(message, "kvCacheBytes must hold one sequence of maxModelLen 32, that is 49152 bytes, received 1");
}

TEST(EnginePlan, "refuses options out of range by name") {
  const auto message = [](const std::function<void(EngineConfig&)>& change) {
    Model model;
    change(model.config);
    try {
      PlanEngine(model.config);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message([](EngineConfig& c) { c.block_size = 0; }), "blockSize must be 16, 32, 64 or 128, received 0");
  EXPECT_EQ(message([](EngineConfig& c) { c.tensor_parallel_size = 0; }),
            "tensorParallelSize must be 1, 2, 4 or 8, received 0");
  EXPECT_EQ(message([](EngineConfig& c) { c.max_num_seqs = -1; }),
            "maxNumSeqs must be an integer from 0 to 1073741824, received -1");
  EXPECT_EQ(message([](EngineConfig& c) { c.threads_per_rank = -1; }),
            "threads must be an integer from 0 to 1024, received -1");
}

}  // namespace
}  // namespace heddle
