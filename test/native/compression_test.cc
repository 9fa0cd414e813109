// Checkpoints made smaller, from folder to folder.
#include "compress/compression.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "compress/source_checkpoint.h"
#include "compress_testing.h"
#include "loader/weight_source.h"

namespace heddle {
namespace {

using test::FormatError;
using test::MatricesFile;
using test::RandomMatrix;
using test::TempFolder;
using test::TestMatrix;

const char* const kUp = "model.layers.0.mlp.up_proj";
const char* const kDown = "model.layers.0.mlp.down_proj";

// A folder with a checkpoint of two linear layers and an embedding, and a place for what becomes of it.
struct Job {
  explicit Job(int64_t columns = 32) {
    std::filesystem::create_directory(root.path() + "/model");
    root.Write("model/config.json", R"({"architectures": ["LlamaForCausalLM"]})");
    root.Write("model/tokenizer.json", "{}");
    root.Write("model/pytorch_model.bin", "old weights");
    root.Write("model/model.safetensors", MatricesFile(matrices = {
                                                           RandomMatrix(std::string(kUp) + ".weight", 40, columns, 1),
                                                           RandomMatrix(std::string(kDown) + ".weight", 24, 48, 2),
                                                           RandomMatrix("model.embed_tokens.weight", 5, 8, 3),
                                                       }));
    options.model = root.path() + "/model";
    options.output = root.path() + "/small";
    options.threads = 2;
  }

  CompressionReport Run() { return CompressCheckpoint(options, on_progress, cancelled); }
  std::string InvalidArgument() {
    try {
      Run();
    } catch (const Error& error) {
      return error.code() == ErrorCode::kInvalidArgument ? error.what() : ErrorCodeName(error.code());
    }
    return "";
  }
  std::vector<std::string> Entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root.path())) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string OutputConfig() const { return ReadFile(options.output + "/config.json", 1 << 20); }

  TempFolder root;
  std::vector<TestMatrix> matrices;
  CompressionOptions options;
  std::function<void(double)> on_progress = [](double) {};
  std::atomic<bool> cancelled{false};
};

std::vector<float> ReadMatrix(const SourceCheckpoint& checkpoint, const std::string& prefix) {
  for (const SourceMatrix& matrix : checkpoint.matrices()) {
    if (matrix.prefix != prefix) continue;
    std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.columns));
    checkpoint.ReadRows(matrix, 0, matrix.rows, values.data());
    return values;
  }
  return {};
}

std::vector<std::string> TensorNames(const std::string& folder) {
  std::vector<std::string> names;
  const SafetensorsFile file(folder + "/model.safetensors");
  for (const SafetensorsTensor& tensor : file.tensors()) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  return names;
}

TEST(CompressCheckpoint, "stores pruned matrices 2:4, and gives back what a dense copy holds") {
  Job job;
  job.options.pruning = PruningMethod::kMagnitude;
  EXPECT_EQ(job.Run().num_sparse, 2);
  const SourceCheckpoint sparse(job.options.output);
  job.options.output += "-dense";
  job.options.dense = true;
  EXPECT_EQ(job.Run().num_sparse, 0);
  const SourceCheckpoint dense(job.options.output);
  EXPECT_TRUE(sparse.stored().sparse_24);
  EXPECT_TRUE(!dense.stored().sparse_24);
  for (const char* prefix : {kUp, kDown}) {
    EXPECT_TRUE(!ReadMatrix(dense, prefix).empty());
    EXPECT_TRUE(ReadMatrix(sparse, prefix) == ReadMatrix(dense, prefix));
  }
  const std::vector<float> kept = ReadMatrix(dense, kUp);
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(kept[i] == 0 || kept[i] == job.matrices[0].values[i]);
}

TEST(CompressCheckpoint, "leaves alone what is no linear layer and what it is to ignore, and takes small files over") {
  Job job;
  job.options.scheme = CompressionScheme::kW8A8;
  job.options.ignore = {"lm_head", "down_proj"};
  job.root.Write("model/recording.wav", "");
  std::filesystem::resize_file(job.options.model + "/recording.wav", (uint64_t{256} << 20) + 1);
  EXPECT_EQ(job.Run().num_matrices, 1);
  const auto source = OpenCheckpoint(job.options.output);
  for (size_t i : {size_t{1}, size_t{2}}) {
    const TestMatrix& matrix = job.matrices[i];
    const Tensor tensor = test::ReadTensor(*source, matrix.name, {matrix.rows, matrix.columns});
    EXPECT_TRUE(std::equal(matrix.values.begin(), matrix.values.end(), tensor.view().Data<float>()));
  }
  EXPECT_CONTAINS(job.OutputConfig(), R"("ignore": ["model.layers.0.mlp.down_proj", "lm_head"])");
  EXPECT_CONTAINS(job.OutputConfig(), R"({"architectures": ["LlamaForCausalLM"],)");
  EXPECT_TRUE(PathExists(job.options.output + "/tokenizer.json"));
  EXPECT_TRUE(!PathExists(job.options.output + "/pytorch_model.bin"));
  EXPECT_TRUE(!PathExists(job.options.output + "/recording.wav"));
}

TEST(CompressCheckpoint, "names routers among the layers that it left as they are") {
  for (const CompressionScheme scheme : {CompressionScheme::kInt8, CompressionScheme::kNone}) {
    Job job;
    job.matrices.push_back(RandomMatrix("model.layers.0.mlp.gate.weight", 8, 32, 4));
    job.root.Write("model/model.safetensors", MatricesFile(job.matrices));
    job.options.scheme = scheme;
    if (scheme == CompressionScheme::kNone) job.options.pruning = PruningMethod::kMagnitude;
    job.Run();
    EXPECT_CONTAINS(job.OutputConfig(), R"("ignore": ["model.layers.0.mlp.gate", "lm_head"])");
  }
}

TEST(CompressCheckpoint, "describes a checkpoint under the key that it had") {
  Job job;
  job.options.pruning = PruningMethod::kMagnitude;
  job.Run();
  std::string config = job.OutputConfig();
  const std::string key = "quantization_config";
  config.replace(config.find(key), key.size(), "compression_config");
  job.root.Write("small/config.json", config);
  CompressionOptions options;
  options.model = job.options.output;
  options.output = job.options.output + "-int8";
  options.scheme = CompressionScheme::kInt8;
  job.options = options;
  job.Run();
  EXPECT_CONTAINS(job.OutputConfig(), "\"compression_config\"");
  EXPECT_TRUE(job.OutputConfig().find(key) == std::string::npos);
}

TEST(CompressCheckpoint, "leaves alone a matrix without rows or columns") {
  Job job;
  job.matrices.push_back({"model.layers.0.mlp.gate_proj.weight", 4, 0, {}});
  job.matrices.push_back({"model.layers.1.mlp.gate_proj.weight", 0, 4, {}});
  job.root.Write("model/model.safetensors", MatricesFile(job.matrices));
  job.options.scheme = CompressionScheme::kInt8;
  EXPECT_EQ(job.Run().num_matrices, 2);
  const std::vector<std::string> names = TensorNames(job.options.output);
  EXPECT_EQ(std::count(names.begin(), names.end(), "model.layers.0.mlp.gate_proj.weight"), 1);
}

TEST(CompressCheckpoint,
     "packs weights of 8 bits alone, and leaves them integers where activations are quantised too") {
  Job job;
  job.options.ignore = {"down_proj"};
  job.options.scheme = CompressionScheme::kInt8;
  job.Run();
  const std::string up = kUp;
  EXPECT_TRUE(TensorNames(job.options.output) ==
              (std::vector<std::string>{"model.embed_tokens.weight", std::string(kDown) + ".weight",
                                        up + ".weight_packed", up + ".weight_scale", up + ".weight_shape"}));
  EXPECT_CONTAINS(job.OutputConfig(), R"("format": "pack-quantized")");
  EXPECT_CONTAINS(job.OutputConfig(), R"("input_activations": null)");
  job.options.output += "-w8a8";
  job.options.scheme = CompressionScheme::kW8A8;
  job.Run();
  EXPECT_TRUE(TensorNames(job.options.output) ==
              (std::vector<std::string>{"model.embed_tokens.weight", std::string(kDown) + ".weight", up + ".weight",
                                        up + ".weight_scale"}));
  EXPECT_CONTAINS(job.OutputConfig(), R"("format": "int-quantized")");
  EXPECT_CONTAINS(job.OutputConfig(), R"("strategy": "token")");
}

TEST(CompressCheckpoint, "keeps a pruned checkpoint 2:4 when it quantises it, whichever way that is stored") {
  for (const bool dense : {false, true}) {
    Job job;
    job.options.pruning = PruningMethod::kMagnitude;
    job.options.dense = dense;
    job.Run();
    CompressionOptions options;
    options.model = job.options.output;
    options.output = job.options.output + "-int8";
    options.scheme = CompressionScheme::kInt8;
    job.options = options;
    EXPECT_EQ(job.Run().num_sparse, 2);
    const std::vector<std::string> names = TensorNames(job.options.output);
    for (const char* part : {".compressed", ".bitmask", ".shape", ".weight_scale"}) {
      EXPECT_EQ(std::count(names.begin(), names.end(), kUp + std::string(part)), 1);
    }
    EXPECT_CONTAINS(job.OutputConfig(), R"("format": "sparse-24-bitmask")");
    EXPECT_CONTAINS(job.OutputConfig(), R"("num_bits": 8)");
  }
}

// Makes two shards of one, with every other tensor in the second.
void SplitInTwo(const TempFolder& root, const std::string& name) {
  const std::string path = root.path() + "/" + name + "/model.safetensors";
  std::array<std::vector<test::FileEntry>, 2> shards;
  std::string map;
  {
    const SafetensorsFile file(path);
    for (const std::string& tensor_name : TensorNames(root.path() + "/" + name)) {
      const auto tensor = std::find_if(file.tensors().begin(), file.tensors().end(),
                                       [&](const auto& other) { return other.name == tensor_name; });
      std::string data(tensor->end - tensor->begin, '\0');
      file.Read(*tensor, 0, data.size(), data.data());
      std::string shape;
      for (const int64_t dim : tensor->shape) shape += (shape.empty() ? "[" : ",") + std::to_string(dim);
      const size_t shard = map.empty() || shards[1].size() == shards[0].size() ? 0 : 1;
      shards[shard].push_back({tensor_name, std::string(tensor->dtype), shape + "]", data});
      map += (map.empty() ? "" : ",") + ("\"" + tensor_name + "\":\"" + std::to_string(shard) + ".safetensors\"");
    }
  }
  std::filesystem::remove(path);
  for (size_t shard : {size_t{0}, size_t{1}}) {
    root.Write(name + "/" + std::to_string(shard) + ".safetensors", test::SafetensorsBytes(shards[shard]));
  }
  root.Write(name + "/model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
}

TEST(CompressCheckpoint, "takes the parts of a pruned matrix from whatever shards they stand in") {
  Job job;
  job.options.pruning = PruningMethod::kMagnitude;
  job.Run();
  CompressionOptions options;
  options.model = job.options.output;
  options.scheme = CompressionScheme::kInt8;
  options.output = job.root.path() + "/whole";
  job.options = options;
  job.Run();
  SplitInTwo(job.root, "small");
  job.options.output = job.root.path() + "/split";
  job.Run();
  EXPECT_EQ(SafetensorsFile(job.options.output + "/0.safetensors").tensors().size() +
                SafetensorsFile(job.options.output + "/1.safetensors").tensors().size(),
            TensorNames(job.root.path() + "/whole").size());
}

TEST(CompressCheckpoint, "refuses what it cannot do in one sentence, and leaves nothing behind") {
  const auto refusal = [](const std::function<void(Job&)>& prepare, int64_t columns = 32) {
    Job job(columns);
    job.options.pruning = PruningMethod::kMagnitude;
    prepare(job);
    const std::vector<std::string> before = job.Entries();
    const std::string message = job.InvalidArgument();
    EXPECT_TRUE(job.Entries() == before);
    return message;
  };
  EXPECT_CONTAINS(refusal([](Job& job) { job.options.output = job.options.model; }), "exists");
  EXPECT_CONTAINS(refusal([](Job& job) { job.options.output += "/a/b"; }), "output must lie in a folder that exists");
  EXPECT_CONTAINS(refusal([](Job& job) { job.options.ignore = {"no_proj"}; }), "received \"no_proj\"");
  EXPECT_CONTAINS(refusal([](Job& job) { job.options.ignore = {"up_proj", "down_proj"}; }), "names them all");
  EXPECT_CONTAINS(refusal([](Job&) {}, 30), "up_proj has 30");
  EXPECT_CONTAINS(refusal([](Job& job) {
                    job.root.Write("model/config.json", R"({"quantization_config": {"quant_method": "bitsandbytes",
                                                            "load_in_8bit": true}})");
                  }),
                  "model must be a checkpoint that is not quantised, but its config.json has a quantization_config");
}

TEST(CompressCheckpoint, "names a matrix with values that are no numbers, and leaves nothing behind") {
  Job job;
  job.matrices[1].values[77] = NAN;
  job.root.Write("model/model.safetensors", MatricesFile(job.matrices));
  job.options.scheme = CompressionScheme::kInt8;
  EXPECT_CONTAINS(FormatError([&] { return job.Run(); }),
                  "\"model.layers.0.mlp.down_proj.weight\" cannot be quantised");
  EXPECT_TRUE(job.Entries() == (std::vector<std::string>{"model"}));
}

TEST(CompressCheckpoint, "leaves nothing behind when it is cancelled in the middle") {
  Job job;
  job.options.scheme = CompressionScheme::kInt8;
  job.on_progress = [&](double fraction) {
    EXPECT_TRUE(fraction > 0 && fraction <= 1);
    job.cancelled = true;
  };
  EXPECT_ERROR(ErrorCode::kCancelled, job.Run());
  EXPECT_TRUE(job.Entries() == (std::vector<std::string>{"model"}));
}

TEST(CompressCheckpoint, "has no output when it is killed in the middle, and the next run clears that away") {
  Job job;
  job.options.scheme = CompressionScheme::kInt8;
  const pid_t child = fork();
  if (child == 0) {
    job.options.threads = 1;
    job.on_progress = [](double) { kill(getpid(), SIGKILL); };
    job.Run();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(!PathExists(job.options.output));
  const std::vector<std::string> left = job.Entries();
  EXPECT_EQ(left.size(), size_t{2});
  const CompressionReport report = job.Run();
  EXPECT_TRUE(report.removed == (std::vector<std::string>{left[1]}));
  EXPECT_TRUE(job.Entries() == (std::vector<std::string>{"model", "small"}));
}

TEST(CompressCheckpoint, "refuses an output that another process is writing") {
  Job job;
  job.options.scheme = CompressionScheme::kInt8;
  const std::string partial = job.options.output + ".partial-abcdef";
  std::filesystem::create_directory(partial);
  const int fd = open(partial.c_str(), O_RDONLY | O_DIRECTORY);
  EXPECT_EQ(flock(fd, LOCK_EX), 0);
  EXPECT_CONTAINS(job.InvalidArgument(), "is being written by another process");
  close(fd);
}

TEST(CompressCheckpoint, "removes no folder of which it does not know that a run of its own left it") {
  Job job;
  job.options.scheme = CompressionScheme::kInt8;
  for (const char* name : {"small.partial-backup", "small.partial-results-2", "small.partial-ab.def"}) {
    std::filesystem::create_directory(job.root.path() + "/" + name);
    job.root.Write(std::string(name) + "/notes.txt", "of the user");
  }
  EXPECT_TRUE(job.Run().removed.empty());
  EXPECT_TRUE(job.Entries() == (std::vector<std::string>{"model", "small", "small.partial-ab.def",
                                                         "small.partial-backup", "small.partial-results-2"}));
  EXPECT_TRUE(!PathExists(job.options.output + "/.heddle-partial"));
}

}  // namespace
}  // namespace heddle
