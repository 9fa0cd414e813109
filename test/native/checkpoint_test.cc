#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <thread>

#include "loader/weight_source.h"
#include "loader_testing.h"
#include "temp_folder.h"
#include "test.h"

namespace heddle {
namespace {

using test::FloatBytes;
using test::FormatError;
using test::ReadTensor;
using test::SafetensorsBytes;
using test::TempFolder;
using test::TensorHeader;

std::string OneTensor(const std::string& name) {
  return SafetensorsBytes("{" + TensorHeader(name, "F32", "[2]", "[0,8]") + "}", FloatBytes({1, 2}));
}

std::string OpenError(const TempFolder& folder) {
  return FormatError([&] { return OpenCheckpoint(folder.path()); });
}

// Two shards, holding a and b, under this index.
std::string ShardedError(const std::string& index) {
  const TempFolder folder;
  folder.Write("one.safetensors", OneTensor("a"));
  folder.Write("two.safetensors", OneTensor("b"));
  folder.Write("model.safetensors.index.json", index);
  return OpenError(folder);
}

TEST(Checkpoint, "gives tensors of a single file, whole or by rows, and outlives the file") {
  std::unique_ptr<WeightSource> source;
  {
    const TempFolder folder;
    folder.Write("model.safetensors", SafetensorsBytes("{" + TensorHeader("w", "F32", "[3,2]", "[0,24]") + "}",
                                                       FloatBytes({1, 2, 3, 4, 5, 6})));
    source = OpenCheckpoint(folder.path());
  }
  const Tensor whole = ReadTensor(*source, "w", {3, 2});
  EXPECT_EQ(whole.view().dtype, DType::kFloat32);
  EXPECT_EQ(whole.view().Row<float>(2)[1], 6.0f);
  const Tensor row(DType::kFloat32, {1, 2});
  source->Get("w", {3, 2})->Read(1, row);
  EXPECT_EQ(row.view().Data<float>()[0], 3.0f);
  EXPECT_EQ(row.view().Data<float>()[1], 4.0f);
}

TEST(Checkpoint, "widens nothing: float32, bfloat16 and float16 come as stored") {
  const TempFolder folder;
  folder.Write("model.safetensors", SafetensorsBytes("{" + TensorHeader("a", "F32", "[1]", "[0,4]") + "," +
                                                         TensorHeader("b", "BF16", "[1]", "[4,6]") + "," +
                                                         TensorHeader("c", "F16", "[1]", "[6,8]") + "}",
                                                     std::string("\x00\x00\x80\x3f\x80\x3f\x00\x3c", 8)));
  const auto source = OpenCheckpoint(folder.path());
  EXPECT_EQ(ReadTensor(*source, "a", {1}).view().Data<float>()[0], 1.0f);
  const Tensor b = ReadTensor(*source, "b", {1});
  EXPECT_EQ(b.view().dtype, DType::kBFloat16);
  EXPECT_EQ(BFloat16ToFloat(b.view().Data<uint16_t>()[0]), 1.0f);
  const Tensor c = ReadTensor(*source, "c", {1});
  EXPECT_EQ(c.view().dtype, DType::kFloat16);
  EXPECT_EQ(Float16ToFloat(c.view().Data<uint16_t>()[0]), 1.0f);
}

TEST(Checkpoint, "reads tensors that the file does not align") {
  const TempFolder folder;
  folder.Write("model.safetensors", SafetensorsBytes("{" + TensorHeader("odd", "U8", "[1]", "[0,1]") + "," +
                                                         TensorHeader("w", "F32", "[2]", "[1,9]") + "}",
                                                     "x" + FloatBytes({3, 4})));
  EXPECT_EQ(ReadTensor(*OpenCheckpoint(folder.path()), "w", {2}).view().Data<float>()[1], 4.0f);
}

TEST(Checkpoint, "names tensor, expectation and finding when a tensor is missing, of another shape or not a float") {
  const TempFolder folder;
  folder.Write("model.safetensors", SafetensorsBytes("{" + TensorHeader("w", "F32", "[2,3]", "[0,24]") + "," +
                                                         TensorHeader("q", "I8", "[4]", "[24,28]") + "}",
                                                     std::string(28, '\0')));
  const auto source = OpenCheckpoint(folder.path());
  EXPECT_CONTAINS(FormatError([&] { return source->Get("v", {2}); }),
                  "tensor \"v\" is missing, expected with shape [2]");
  EXPECT_CONTAINS(FormatError([&] {
                    return source->Get("w", {3, 2});
                  }),
                  "model.safetensors: tensor \"w\" must have shape [3, 2], found [2, 3]");
  EXPECT_CONTAINS(FormatError([&] { return source->Get("w", {6}); }), "must have shape [6], found [2, 3]");
  EXPECT_CONTAINS(FormatError([&] { return source->Get("w", {2, 3, 1}); }), "must have shape [2, 3, 1]");
  EXPECT_CONTAINS(FormatError([&] { return source->Get("q", {4}); }),
                  "tensor \"q\" must have dtype F32, BF16 or F16, found I8");
  EXPECT_TRUE(source->Has("w") && source->Has("q") && !source->Has("v"));
}

TEST(Checkpoint, "fails with a typed error when a file was cut after its tensor was found") {
  const TempFolder folder;
  const std::string path = folder.Write("model.safetensors", OneTensor("w"));
  const auto source = OpenCheckpoint(folder.path());
  const auto stored = source->Get("w", {2});
  EXPECT_EQ(truncate(path.c_str(), 16), 0);
  EXPECT_CONTAINS(FormatError([&] {
                    stored->Read(0, Tensor(DType::kFloat32, {2}));
                    return 0;
                  }),
                  "model.safetensors: ended before byte ");
}

TEST(Checkpoint, "knows what nobody asked for, with many threads asking at once") {
  const TempFolder folder;
  std::string header = "{";
  for (int i = 0; i < 64; ++i) {
    header += (i > 0 ? "," : "") + TensorHeader("t" + std::to_string(i), "F32", "[0]", "[0,0]");
  }
  folder.Write("model.safetensors", SafetensorsBytes(header + "}", ""));
  const auto source = OpenCheckpoint(folder.path());
  EXPECT_EQ(source->Unused().size(), 64u);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&source] {
      for (int i = 0; i < 63; ++i) source->Get("t" + std::to_string(i), {0});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(source->Unused() == std::vector<std::string>{"t63"});
  EXPECT_TRUE(source->Has("t63"));
  EXPECT_EQ(source->Unused().size(), 1u);
}

TEST(Checkpoint, "opens shards through the index, symbolic links included") {
  const TempFolder folder;
  const std::string blob = folder.Write("blob", OneTensor("b"));
  folder.Write("one.safetensors", OneTensor("a"));
  std::filesystem::create_symlink(blob, folder.path() + "/two.safetensors");
  folder.Write(
      "model.safetensors.index.json",
      "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"b\":\"two.safetensors\",\"a\":\"one.safetensors\"}}");
  const auto source = OpenCheckpoint(folder.path());
  EXPECT_EQ(ReadTensor(*source, "a", {2}).view().Data<float>()[0], 1.0f);
  EXPECT_EQ(ReadTensor(*source, "b", {2}).view().Data<float>()[1], 2.0f);
  EXPECT_TRUE(source->Unused().empty());
}

TEST(Checkpoint, "refuses an index that is not a map from tensors to files") {
  for (const std::string index : {"", "[]", "{}", "{\"weight_map\":[]}", "{\"weight_map\":{}}", "{\"weight_map\":null}",
                                  "{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{\"a\":null}}",
                                  "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}"}) {
    EXPECT_CONTAINS(ShardedError(index), "model.safetensors.index.json: ");
  }
}

TEST(Checkpoint, "refuses names of shards that are not plain file names, before opening any") {
  for (const std::string name : {"../one.safetensors", "/etc/passwd", "x/../one.safetensors", "..", ".", "",
                                 "..\\\\one.safetensors", "one.safetensors\\u0000", "\\u002e\\u002e/one.safetensors"}) {
    EXPECT_CONTAINS(ShardedError("{\"weight_map\":{\"a\":\"" + name + "\",\"b\":\"absent\"}}"),
                    "weight_map[\"a\"] must be the plain name of a file beside it, received");
  }
  EXPECT_CONTAINS(ShardedError("{\"weight_map\":{\"a\":\"" + std::string(300, 'n') + "\"}}"), "plain name of a file");
}

TEST(Checkpoint, "refuses an index and shards that disagree, naming tensor and shard") {
  const std::string a = "\"a\":\"one.safetensors\"";
  const std::string b = "\"b\":\"two.safetensors\"";
  EXPECT_EQ(ShardedError("{\"weight_map\":{" + a + "," + b + "}}"), std::string());
  EXPECT_CONTAINS(ShardedError("{\"weight_map\":{" + a + "," + b + ",\"c\":\"three.safetensors\"}}"),
                  "/three.safetensors: missing, though model.safetensors.index.json names it");
  EXPECT_CONTAINS(ShardedError("{\"weight_map\":{" + a + "," + b + ",\"c\":\"two.safetensors\"}}"),
                  "maps tensor \"c\" to \"two.safetensors\", which does not hold it");
  EXPECT_CONTAINS(ShardedError("{\"weight_map\":{\"c\":\"one.safetensors\"," + b + "}}"),
                  "does not map tensor \"a\", which one.safetensors holds");
  EXPECT_CONTAINS(ShardedError("{\"weight_map\":{\"a\":\"two.safetensors\"," + b + ",\"c\":\"one.safetensors\"}}"),
                  "maps tensor \"a\" to \"two.safetensors\", but one.safetensors holds it");
}

TEST(Checkpoint, "refuses a tensor that two shards hold") {
  const TempFolder folder;
  folder.Write("one.safetensors", OneTensor("a"));
  folder.Write("two.safetensors", OneTensor("a"));
  folder.Write("model.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
  EXPECT_CONTAINS(OpenError(folder), "maps tensor \"a\" to \"one.safetensors\", but two.safetensors holds it");
}

TEST(Checkpoint, "refuses a broken shard by its own name") {
  const TempFolder folder;
  folder.Write("one.safetensors", OneTensor("a").substr(0, 30));
  folder.Write("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one.safetensors\"}}");
  EXPECT_CONTAINS(OpenError(folder), "/one.safetensors: a header of");
}

TEST(Checkpoint, "says what it looked for when there are no weights, and what it found instead") {
  const TempFolder folder;
  EXPECT_CONTAINS(OpenError(folder), "holds neither model.safetensors nor model.safetensors.index.json");
  folder.Write("pytorch_model.bin", "");
  EXPECT_CONTAINS(OpenError(folder), "it has \"pytorch_model.bin\", but only safetensors files are read");
  EXPECT_CONTAINS(FormatError([&] { return OpenCheckpoint(folder.path() + "/absent"); }), "/absent: no such folder");
  for (const char* name : {"m.gguf", "m.pt"}) {
    const TempFolder other;
    other.Write(name, "");
    EXPECT_CONTAINS(OpenError(other), "only safetensors files are read");
  }
}

TEST(DummyWeights, "are repeatable by name, differ between names, and have the promised spread") {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    const auto source = DummyWeights(dtype);
    const Tensor first = ReadTensor(*source, "model.layers.0.mlp.up_proj.weight", {300, 500});
    EXPECT_EQ(first.view().dtype, dtype);
    const std::string bytes(static_cast<const char*>(first.view().data), 150'000 * DTypeSize(dtype));
    const auto bytes_of = [&](WeightSource& from, const std::string& name) {
      const Tensor tensor = ReadTensor(from, name, {300, 500});
      return std::string(static_cast<const char*>(tensor.view().data), 150'000 * DTypeSize(dtype));
    };
    EXPECT_TRUE(bytes_of(*source, "model.layers.0.mlp.up_proj.weight") == bytes);
    EXPECT_TRUE(bytes_of(*DummyWeights(dtype), "model.layers.0.mlp.up_proj.weight") == bytes);
    EXPECT_TRUE(bytes_of(*source, "model.layers.1.mlp.up_proj.weight") != bytes);
  }
  const Tensor sample = ReadTensor(*DummyWeights(DType::kFloat32), "w", {1000, 1000});
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const double value = sample.view().Data<float>()[i];
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / 1e6, 0.0, 1e-4);
  EXPECT_NEAR(std::sqrt(squares / 1e6), 0.02, 1e-4);
}

TEST(DummyWeights, "are one in norms, have every name, and do not repeat the rows of a large matrix") {
  const auto source = DummyWeights(DType::kFloat32);
  for (const char* name : {"model.norm.weight", "model.layers.3.input_layernorm.weight", "m.self_attn.q_norm.weight"}) {
    const Tensor norm = ReadTensor(*source, name, {64});
    EXPECT_EQ(norm.view().Data<float>()[0], 1.0f);
    EXPECT_EQ(norm.view().Data<float>()[63], 1.0f);
  }
  EXPECT_TRUE(source->Has("anything"));
  EXPECT_TRUE(source->Unused().empty());
  const Tensor wide = ReadTensor(*source, "model.embed_tokens.weight", {4100, 2048});
  for (int row = 1; row < 4100; ++row) {
    EXPECT_TRUE(std::memcmp(wide.view().Row<float>(0), wide.view().Row<float>(row), 2048 * sizeof(float)) != 0);
  }
}

TEST(DummyWeights, "are the same however the rows are cut") {
  const auto source = DummyWeights(DType::kBFloat16);
  const Shape shape{4500, 1000};  // longer than what repeats
  const Tensor whole = ReadTensor(*source, "w", shape);
  const auto stored = source->Get("w", shape);
  for (int64_t row = 0, rows = 1; row < shape[0]; row += rows, rows = rows * 3 % 1009) {
    const Tensor part(DType::kBFloat16, {std::min(rows, shape[0] - row), shape[1]});
    stored->Read(row, part);
    const auto bytes = static_cast<size_t>(part.view().shape.NumElements()) * sizeof(uint16_t);
    EXPECT_TRUE(std::memcmp(part.view().data, whole.view().Row<uint16_t>(row), bytes) == 0);
  }
}

}  // namespace
}  // namespace heddle
