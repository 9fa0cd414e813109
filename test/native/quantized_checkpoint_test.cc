#include "loader/quantized_checkpoint.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "loader_testing.h"
#include "temp_folder.h"
#include "test.h"

namespace heddle {
namespace {

using test::FileEntry;
using test::FloatBytes;
using test::FormatError;
using test::SafetensorsBytes;
using test::TempFolder;

const std::string kModule = "model.layers.0.mlp.up_proj";
const std::string kWeight = kModule + ".weight";

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

StoredQuantization Parse(const std::string& quantization) {
  return ParseStoredQuantization(Json::Parse("{\"quantization_config\":" + quantization + "}", "config.json"));
}

StoredQuantization BitsAndBytes() { return Parse("{\"load_in_8bit\":true}"); }

StoredQuantization CompressedTensors(const std::string& format, const std::string& strategy = "channel") {
  return Parse(
      "{\"quant_method\":\"compressed-tensors\",\"format\":\"" + format +
      "\",\"ignore\":[\"lm_head\"],\"config_groups\":{\"a\":{\"targets\":[\"Linear\"],\"weights\":{\"strategy\":\"" +
      strategy + "\"}}}}");
}

const std::string kSparsity =
    "\"sparsity_config\":{\"format\":\"sparse-24-bitmask\",\"targets\":[\"Linear\"],\"ignore\":[\"lm_head\"]}";

StoredQuantization Sparse() { return Parse("{\"quant_method\":\"compressed-tensors\"," + kSparsity + "}"); }

StoredQuantization SparseInt8() {
  return Parse(
      "{\"quant_method\":\"compressed-tensors\"," + kSparsity +
      ",\"format\":\"int-quantized\",\"config_groups\":{\"a\":{\"targets\":[\"Linear\"],\"weights\":{\"strategy\":"
      "\"channel\"}}}}");
}

// A checkpoint of these tensors.
std::unique_ptr<WeightSource> Open(const std::vector<FileEntry>& tensors, const StoredQuantization& stored) {
  const TempFolder folder;  // the files stay readable
  folder.Write("model.safetensors", SafetensorsBytes(tensors));
  return OpenQuantizedCheckpoint(folder.path(), stored);
}

// What Get, or else Read, says of kWeight.
std::string WeightError(const std::vector<FileEntry>& tensors, const StoredQuantization& stored, const Shape& shape) {
  const auto source = Open(tensors, stored);
  return FormatError([&] {
    const auto weight = source->Get(kWeight, shape);
    weight->Read(0, Tensor(weight->dtype(), shape));
    return 0;
  });
}

template <typename T>
std::vector<T> ReadRows(const StoredTensor& stored, int64_t begin, int64_t end) {
  const int64_t columns = stored.shape()[1];
  const Tensor rows(stored.dtype(), {end - begin, columns});
  stored.Read(begin, rows);
  const T* data = rows.view().Data<T>();
  return {data, data + (end - begin) * columns};
}

// Whole, by rows, and from the middle.
template <typename T>
void ExpectRows(const StoredTensor& stored, const std::vector<T>& expected) {
  const int64_t rows = stored.shape()[0];
  const auto columns = static_cast<size_t>(stored.shape()[1]);
  for (int64_t begin = 0; begin < rows; ++begin) {
    for (int64_t end = begin; end <= rows; ++end) {
      const auto first = expected.begin() + begin * static_cast<int64_t>(columns);
      EXPECT_TRUE(ReadRows<T>(stored, begin, end) ==
                  std::vector<T>(first, first + (end - begin) * static_cast<int64_t>(columns)));
    }
  }
}

std::vector<float> Scales(const StoredTensor& stored) {
  return {stored.row_scales().begin(), stored.row_scales().end()};
}

const std::vector<int8_t> kElements{-127, 0, 127, 5, -1, 64};

std::vector<FileEntry> BitsAndBytesTensors(const std::string& scb = FloatBytes({127, 12.7f, 254})) {
  return {{kWeight, "I8", "[3,2]", Bytes(kElements)}, {kModule + ".SCB", "F32", "[3]", scb}};
}

TEST(QuantizedCheckpoint, "reads a matrix of bitsandbytes as int8 with a scale for each row") {
  auto tensors = BitsAndBytesTensors();
  tensors.push_back({kModule + ".weight_format", "U8", "[]", std::string(1, '\0')});
  tensors.push_back({"model.norm.weight", "F16", "[1]", std::string("\x00\x3c", 2)});
  const auto source = Open(tensors, BitsAndBytes());
  const auto weight = source->Get(kWeight, {3, 2});
  EXPECT_EQ(weight->dtype(), DType::kInt8);
  EXPECT_TRUE(Scales(*weight) == std::vector<float>({1.0f, 12.7f / 127.0f, 2.0f}));
  ExpectRows(*weight, kElements);
  EXPECT_TRUE(source->Unused() == std::vector<std::string>{"model.norm.weight"});
  const auto norm = source->Get("model.norm.weight", {1});
  EXPECT_TRUE(norm->dtype() == DType::kFloat16 && norm->row_scales().empty());
  EXPECT_TRUE(source->Has(kWeight) && !source->Has("lm_head.weight"));
}

TEST(QuantizedCheckpoint, "refuses a scale that is zero, negative, infinite or NaN by tensor, row and value") {
  const auto with = [](float scale) {
    return WeightError(BitsAndBytesTensors(FloatBytes({1, scale, 1})), BitsAndBytes(), {3, 2});
  };
  const std::string where =
      "model.safetensors: tensor \"" + kModule + ".SCB\" row 1 must be finite and above zero, found ";
  EXPECT_CONTAINS(with(0), where + "0");
  EXPECT_CONTAINS(with(-2.5f), where + "-2.5");
  EXPECT_CONTAINS(with(std::numeric_limits<float>::infinity()), where + "inf");
  EXPECT_CONTAINS(with(std::numeric_limits<float>::quiet_NaN()), where + "nan");
  EXPECT_CONTAINS(with(1e-45f), where + "1.4013e-45");  // vanishes when divided by 127
}

TEST(QuantizedCheckpoint, "refuses tensors of bitsandbytes that are missing or not as config.json says") {
  const std::string says = ", as quantization_config has it in int8";
  const FileEntry weight = BitsAndBytesTensors()[0];
  const FileEntry scb = BitsAndBytesTensors()[1];
  const FileEntry narrow{kWeight, "BF16", "[3,2]", std::string(12, '\0')};
  EXPECT_CONTAINS(WeightError({scb}, BitsAndBytes(), {3, 2}),
                  "tensor \"" + kWeight + "\" is missing, expected with shape [3, 2]" + says);
  EXPECT_CONTAINS(WeightError({weight}, BitsAndBytes(), {3, 2}),
                  "tensor \"" + kModule + ".SCB\" is missing, expected with shape [3]" + says);
  EXPECT_CONTAINS(WeightError({narrow, scb}, BitsAndBytes(), {3, 2}),
                  "tensor \"" + kWeight + "\" must have dtype I8" + says + ", found BF16");
  EXPECT_CONTAINS(WeightError({weight, scb}, BitsAndBytes(), {2, 3}),
                  "must have shape [2, 3]" + says + ", found [3, 2]");
  EXPECT_CONTAINS(WeightError({weight, {kModule + ".SCB", "F32", "[2]", FloatBytes({1, 1})}}, BitsAndBytes(), {3, 2}),
                  "must have shape [3]" + says + ", found [2]");
  const FileEntry columns{kModule + ".weight_format", "U8", "[]", "\x02"};
  EXPECT_CONTAINS(WeightError({weight, scb, columns}, BitsAndBytes(), {3, 2}),
                  "tensor \"" + columns.name + "\" must be 0, which is row-major, found 2");
}

TEST(QuantizedCheckpoint, "refuses int8 in a module that config.json leaves alone") {
  const auto source = Open({{"lm_head.weight", "I8", "[3,2]", Bytes(kElements)}}, BitsAndBytes());
  EXPECT_CONTAINS(
      FormatError([&] {
        return source->Get("lm_head.weight", {3, 2});
      }),
      "tensor \"lm_head.weight\" must have dtype F32, BF16 or F16, as quantization_config does not have it in "
      "int8, found I8");
}

TEST(QuantizedCheckpoint, "reads int-quantized with scales of any float dtype, for each row or for all") {
  const FileEntry weight{kWeight, "I8", "[3,2]", Bytes(kElements)};
  const std::string name = kModule + ".weight_scale";
  const std::vector<FileEntry> scales{{name, "F32", "[3,1]", FloatBytes({1, 2, 0.5f})},
                                      {name, "BF16", "[3]", Bytes<uint16_t>({0x3f80, 0x4000, 0x3f00})},
                                      {name, "F16", "[3,1]", Bytes<uint16_t>({0x3c00, 0x4000, 0x3800})}};
  for (const FileEntry& scale : scales) {
    const auto source = Open({weight, scale}, CompressedTensors("int-quantized"));
    const auto stored = source->Get(kWeight, {3, 2});
    EXPECT_TRUE(stored->dtype() == DType::kInt8 && Scales(*stored) == std::vector<float>({1, 2, 0.5f}));
    ExpectRows(*stored, kElements);
    EXPECT_TRUE(source->Unused().empty());
  }
  for (const char* shape : {"[1]", "[]", "[1,1]"}) {
    const FileEntry scale{name, "F32", shape, FloatBytes({0.25f})};
    const auto source = Open({weight, scale}, CompressedTensors("int-quantized", "tensor"));
    EXPECT_TRUE(Scales(*source->Get(kWeight, {3, 2})) == std::vector<float>(3, 0.25f));
    EXPECT_CONTAINS(WeightError({weight, scale}, CompressedTensors("int-quantized"), {3, 2}),
                    "tensor \"" + name + "\" must have shape [3, 1] or [3], as quantization_config has it in int8");
  }
  EXPECT_CONTAINS(WeightError({weight, scales[0]}, CompressedTensors("int-quantized", "tensor"), {3, 2}),
                  "must have shape [1], [] or [1, 1], as quantization_config has it in int8, found [3, 1]");
  EXPECT_CONTAINS(WeightError({weight}, CompressedTensors("int-quantized"), {3, 2}), "\"" + name + "\" is missing");
  EXPECT_CONTAINS(WeightError({weight, {name, "BF16", "[3]", Bytes<uint16_t>({0x3f80, 0, 0x3f80})}},
                              CompressedTensors("int-quantized"), {3, 2}),
                  "tensor \"" + name + "\" row 1 must be finite and above zero, found 0");
}

TEST(QuantizedCheckpoint, "takes zero points that are zero, and no others") {
  std::vector<FileEntry> tensors{{kWeight, "I8", "[3,2]", Bytes(kElements)},
                                 {kModule + ".weight_scale", "F32", "[3,1]", FloatBytes({1, 2, 3})},
                                 {kModule + ".weight_zero_point", "I8", "[3,1]", std::string(3, '\0')}};
  const auto source = Open(tensors, CompressedTensors("int-quantized"));
  source->Get(kWeight, {3, 2});
  EXPECT_TRUE(source->Unused().empty());
  tensors[2].data[1] = 4;
  EXPECT_CONTAINS(
      WeightError(tensors, CompressedTensors("int-quantized"), {3, 2}),
      "tensor \"" + kModule + ".weight_zero_point\" must be all zero, as quantization_config has it symmetric");
  tensors[2].name = kModule + ".input_scale";
  const auto other = Open(tensors, CompressedTensors("int-quantized"));
  other->Get(kWeight, {3, 2});
  EXPECT_TRUE(other->Unused() == std::vector<std::string>{kModule + ".input_scale"});
}

// kElements as [2, 3] and as [1, 6]: + 128, the first in the lowest byte, rows filled up with zeros.
std::vector<FileEntry> PackedTensors() {
  return {{kModule + ".weight_packed", "I32", "[2,1]", std::string("\x01\x80\xff\x00\x85\x7f\xc0\x00", 8)},
          {kModule + ".weight_scale", "F32", "[2,1]", FloatBytes({1, 2})},
          {kModule + ".weight_shape", "I64", "[2]", Bytes<int64_t>({2, 3})}};
}

TEST(QuantizedCheckpoint, "reads pack-quantized, rows filled up or not") {
  const auto source = Open(PackedTensors(), CompressedTensors("pack-quantized"));
  const auto stored = source->Get(kWeight, {2, 3});
  EXPECT_TRUE(stored->dtype() == DType::kInt8 && Scales(*stored) == std::vector<float>({1, 2}));
  ExpectRows(*stored, kElements);
  EXPECT_TRUE(source->Unused().empty() && source->Has(kWeight));
  auto full = PackedTensors();
  full[2] = {kModule + ".weight_shape", "I32", "[2]", Bytes<int32_t>({2, 4})};
  ExpectRows<int8_t>(*Open(full, CompressedTensors("pack-quantized"))->Get(kWeight, {2, 4}),
                     {-127, 0, 127, -128, 5, -1, 64, -128});
}

TEST(QuantizedCheckpoint, "refuses pack-quantized whose tensors disagree") {
  const StoredQuantization packed = CompressedTensors("pack-quantized");
  EXPECT_CONTAINS(WeightError(PackedTensors(), packed, {2, 4}),
                  "tensor \"" + kModule + ".weight_shape\" must hold [2, 4], found [2, 3]");
  EXPECT_CONTAINS(
      WeightError(PackedTensors(), packed, {2, 5}),
      "\"" + kModule + ".weight_packed\" must have shape [2, 2], as quantization_config has it in int8, found [2, 1]");
  EXPECT_CONTAINS(WeightError(PackedTensors(), CompressedTensors("int-quantized"), {2, 3}),
                  "tensor \"" + kWeight +
                      "\" is missing, expected with shape [2, 3], as quantization_config has it in int8, "
                      "found \"" +
                      kModule + ".weight_packed\"");
  auto tensors = PackedTensors();
  tensors.pop_back();
  EXPECT_CONTAINS(WeightError(tensors, packed, {2, 3}), "\"" + kModule + ".weight_shape\" is missing");
}

// Two rows of twelve columns.
const std::vector<uint16_t> kSparseRows{1, 2, 0, 0, 0, 3, 0, 4, 0, 0,  5,  6,  //
                                        0, 0, 0, 7, 8, 0, 9, 0, 0, 10, 11, 0};

std::vector<FileEntry> SparseTensors() {
  return {{kModule + ".compressed", "BF16", "[2,6]", Bytes<uint16_t>({1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11})},
          {kModule + ".bitmask", "U8", "[2,2]", std::string("\xa3\x0c\x59\x06", 4)},
          {kModule + ".shape", "I64", "[2,1]", Bytes<int64_t>({2, 12})}};
}

TEST(QuantizedCheckpoint, "reads sparse-24-bitmask with its zeros in every dtype") {
  const auto source = Open(SparseTensors(), Sparse());
  const auto stored = source->Get(kWeight, {2, 12});
  EXPECT_TRUE(stored->dtype() == DType::kBFloat16 && stored->row_scales().empty());
  ExpectRows(*stored, kSparseRows);
  EXPECT_TRUE(source->Unused().empty() && source->Has(kWeight));
  auto wide = SparseTensors();
  wide[0] = {kModule + ".compressed", "F32", "[2,6]", FloatBytes({1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11})};
  ExpectRows(*Open(wide, Sparse())->Get(kWeight, {2, 12}), std::vector<float>(kSparseRows.begin(), kSparseRows.end()));
  auto narrow = SparseTensors();
  narrow[0] = {kModule + ".compressed", "I8", "[2,6]", Bytes<int8_t>({1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11})};
  narrow.push_back({kModule + ".weight_scale", "F32", "[2,1]", FloatBytes({3, 4})});
  const auto int8 = Open(narrow, SparseInt8());
  const auto weight = int8->Get(kWeight, {2, 12});
  EXPECT_TRUE(weight->dtype() == DType::kInt8 && Scales(*weight) == std::vector<float>({3, 4}));
  ExpectRows(*weight, std::vector<int8_t>(kSparseRows.begin(), kSparseRows.end()));
  EXPECT_TRUE(int8->Unused().empty());
}

TEST(QuantizedCheckpoint, "refuses a mask that is not 2:4 by row, columns and bits") {
  const std::string where = "tensor \"" + kModule + ".bitmask\" row 1 ";
  auto tensors = SparseTensors();
  tensors[1].data[2] = '\x79';
  EXPECT_CONTAINS(WeightError(tensors, Sparse(), {2, 12}),
                  where + "must have two of columns 4 to 7, found the bits 1110");
  tensors[1].data[2] = '\x51';
  EXPECT_CONTAINS(WeightError(tensors, Sparse(), {2, 12}),
                  where + "must have two of columns 0 to 3, found the bits 1000");
  tensors[1].data[2] = '\x59';
  tensors[1].data[3] = '\x36';
  EXPECT_CONTAINS(WeightError(tensors, Sparse(), {2, 12}), where + "has bits beyond its 12 columns");
}

TEST(QuantizedCheckpoint, "refuses sparse-24-bitmask whose tensors disagree") {
  const std::string says = ", as quantization_config.sparsity_config has it 2:4 sparse";
  EXPECT_CONTAINS(WeightError(SparseTensors(), Sparse(), {2, 16}),
                  "\"" + kModule + ".compressed\" must have shape [2, 8]" + says + ", found [2, 6]");
  EXPECT_CONTAINS(WeightError(SparseTensors(), Sparse(), {2, 10}),
                  "matrix \"" + kWeight + "\" [2, 10] must have a multiple of four columns" + says);
  EXPECT_CONTAINS(WeightError(SparseTensors(), SparseInt8(), {2, 12}),
                  "\"" + kModule + ".compressed\" must have dtype I8" + says + " in int8, found BF16");
  for (const size_t missing : {size_t{0}, size_t{1}, size_t{2}}) {
    auto tensors = SparseTensors();
    const std::string name = tensors[missing].name;
    tensors.erase(tensors.begin() + static_cast<int64_t>(missing));
    EXPECT_CONTAINS(WeightError(tensors, Sparse(), {2, 12}), "tensor \"" + name + "\" is missing");
  }
  auto tensors = SparseTensors();
  tensors[1] = {kModule + ".bitmask", "U8", "[2,1]", std::string(2, '\x33')};
  EXPECT_CONTAINS(WeightError(tensors, Sparse(), {2, 12}),
                  ".bitmask\" must have shape [2, 2]" + says + ", found [2, 1]");
  tensors = SparseTensors();
  tensors[2].data = Bytes<int64_t>({12, 2});
  EXPECT_CONTAINS(WeightError(tensors, Sparse(), {2, 12}), ".shape\" must hold [2, 12], found [12, 2]");
  EXPECT_CONTAINS(
      WeightError({{kWeight, "BF16", "[2,12]", Bytes(kSparseRows)}}, Sparse(), {2, 12}),
      "\"" + kModule + ".compressed\" is missing, expected with shape [2, 6]" + says + ", found \"" + kWeight + "\"");
}

TEST(QuantizedCheckpoint, "is a plain one where config.json says nothing") {
  const auto source = Open({{kWeight, "F32", "[1,2]", FloatBytes({3, 4})}}, {});
  ExpectRows<float>(*source->Get(kWeight, {1, 2}), {3, 4});
  EXPECT_CONTAINS(WeightError(BitsAndBytesTensors(), {}, {3, 2}), "must have dtype F32, BF16 or F16, found I8");
}

TEST(QuantizedCheckpoint, "reads the bundled checkpoint of bitsandbytes to its last tensor") {
  const char* data = std::getenv("HEDDLE_TEST_DATA");
  const std::string folder = std::string(data != nullptr ? data : "../shared") + "/models/tiny-lexicon-bnb-int8";
  if (!std::filesystem::exists(folder)) SKIP("there is no " + folder);
  const StoredQuantization stored = ParseStoredQuantization(Json::ParseFile(folder + "/config.json"));
  EXPECT_TRUE(stored.scheme == QuantizationScheme::kLlmInt8);
  const auto source = OpenQuantizedCheckpoint(folder, stored);
  source->Get("model.embed_tokens.weight", {4096, 256});
  source->Get("model.norm.weight", {256});
  for (int layer = 0; layer < 8; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const std::vector<std::pair<std::string, Shape>> matrices{
        {"self_attn.q_proj", {512, 256}}, {"self_attn.k_proj", {256, 256}}, {"self_attn.v_proj", {256, 256}},
        {"self_attn.o_proj", {256, 512}}, {"mlp.gate_proj", {640, 256}},    {"mlp.up_proj", {640, 256}},
        {"mlp.down_proj", {256, 640}}};
    for (const auto& [name, shape] : matrices) {
      const auto weight = source->Get(prefix + name + ".weight", shape);
      EXPECT_EQ(weight->dtype(), DType::kInt8);
      EXPECT_EQ(static_cast<int64_t>(weight->row_scales().size()), shape[0]);
      for (int64_t row = 0; row < shape[0]; ++row) {
        const std::vector<int8_t> elements = ReadRows<int8_t>(*weight, row, row + 1);
        const auto [min, max] = std::minmax_element(elements.begin(), elements.end());
        EXPECT_EQ(std::max(-*min, +*max), 127);  // what the row's scale stands for
      }
    }
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
      source->Get(prefix + norm + ".weight", {256});
  }
  EXPECT_TRUE(source->Unused().empty());
}

}  // namespace
}  // namespace heddle
