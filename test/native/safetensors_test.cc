#include "loader/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "loader_testing.h"
#include "temp_folder.h"
#include "test.h"

namespace heddle {
namespace {

using test::FloatBytes;
using test::FormatError;
using test::SafetensorsBytes;
using test::TempFolder;
using test::TensorHeader;

const std::string kTwoTensors = "{" + TensorHeader("a", "F32", "[2,3]", "[0,24]") + "," +
                                TensorHeader("b", "BF16", "[2]", "[24,28]") +
                                ",\"__metadata__\":{\"format\":\"pt\"}}   ";

std::string Zeros(size_t bytes) { return std::string(bytes, '\0'); }

// Opens a file of these bytes, which stays readable when the folder goes.
std::unique_ptr<SafetensorsFile> OpenBytes(const std::string& bytes) {
  const TempFolder folder;
  return std::make_unique<SafetensorsFile>(folder.Write("model.safetensors", bytes));
}

std::string BytesOf(const SafetensorsFile& file, const SafetensorsTensor& tensor) {
  std::string bytes(tensor.end - tensor.begin, '\0');
  file.Read(tensor, 0, bytes.size(), bytes.data());
  return bytes;
}

std::string OpenError(const std::string& header, const std::string& data) {
  return FormatError([&] { return OpenBytes(SafetensorsBytes(header, data)); });
}

TEST(Safetensors, "reads every tensor with its name, dtype, shape and bytes") {
  const auto file = OpenBytes(SafetensorsBytes(kTwoTensors, FloatBytes({1, 2, 3, 4, 5, 6}) + "wxyz"));
  EXPECT_EQ(file->tensors().size(), 2u);
  const SafetensorsTensor& a = file->tensors()[0];
  EXPECT_EQ(a.name, std::string("a"));
  EXPECT_EQ(a.dtype, std::string("F32"));
  EXPECT_TRUE((a.shape == std::vector<int64_t>{2, 3}));
  EXPECT_EQ(BytesOf(*file, a), FloatBytes({1, 2, 3, 4, 5, 6}));
  const SafetensorsTensor& b = file->tensors()[1];
  EXPECT_EQ(b.dtype, std::string("BF16"));
  EXPECT_EQ(BytesOf(*file, b), std::string("wxyz"));
}

TEST(Safetensors, "allows no tensors, tensors without elements or dimensions, and any order of offsets") {
  EXPECT_TRUE(OpenBytes(SafetensorsBytes("{}", ""))->tensors().empty());
  const std::string header =
      "{" + TensorHeader("last", "U8", "[3]", "[8,11]") + "," + TensorHeader("empty", "F32", "[0,5]", "[4,4]") + "," +
      TensorHeader("scalar", "F32", "[]", "[0,4]") + "," + TensorHeader("eight", "I16", "[1,1,1,1,1,1,1,2]", "[4,8]") +
      "," + TensorHeader("end", "F64", "[0]", "[11,11]") + "}";
  const auto file = OpenBytes(SafetensorsBytes(header, "0123456789a"));
  EXPECT_EQ(file->tensors().size(), 5u);
  EXPECT_EQ(file->tensors()[0].name, std::string("last"));
  EXPECT_EQ(BytesOf(*file, file->tensors()[0]), std::string("89a"));
  EXPECT_EQ(BytesOf(*file, file->tensors()[1]), std::string());
  EXPECT_TRUE(file->tensors()[2].shape.empty());
  EXPECT_EQ(file->tensors()[3].shape.size(), 8u);
}

TEST(Safetensors, "knows every dtype of whole bytes and refuses the others by name") {
  for (const auto& [dtype, bytes] : std::vector<std::pair<std::string, size_t>>{{"BOOL", 1},
                                                                                {"U8", 1},
                                                                                {"I8", 1},
                                                                                {"F8_E5M2", 1},
                                                                                {"F8_E4M3", 1},
                                                                                {"F8_E8M0", 1},
                                                                                {"I16", 2},
                                                                                {"U16", 2},
                                                                                {"F16", 2},
                                                                                {"BF16", 2},
                                                                                {"I32", 4},
                                                                                {"U32", 4},
                                                                                {"F32", 4},
                                                                                {"F64", 8},
                                                                                {"I64", 8},
                                                                                {"U64", 8}}) {
    const std::string offsets = "[0," + std::to_string(3 * bytes) + "]";
    const auto file =
        OpenBytes(SafetensorsBytes("{" + TensorHeader("t", dtype, "[3]", offsets) + "}", Zeros(3 * bytes)));
    EXPECT_EQ(file->tensors()[0].dtype, dtype);
  }
  for (const std::string dtype : {"F4", "F6_E2M3", "C64", "f32", "float32", ""}) {
    EXPECT_CONTAINS(OpenError("{" + TensorHeader("layer.w", dtype, "[2]", "[0,8]") + "}", Zeros(8)),
                    "model.safetensors: tensor \"layer.w\" has the unknown dtype \"" + dtype + "\"");
  }
}

TEST(Safetensors, "refuses what is not a readable regular file") {
  const TempFolder folder;
  EXPECT_CONTAINS(FormatError([&] { return SafetensorsFile(folder.path() + "/absent"); }), "/absent: cannot be opened");
  EXPECT_CONTAINS(FormatError([&] { return SafetensorsFile(folder.path()); }), "not a regular file");
  const std::string fifo = folder.path() + "/fifo";
  EXPECT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_CONTAINS(FormatError([&] { return SafetensorsFile(fifo); }), "not a regular file");
  EXPECT_CONTAINS(FormatError([&] { return SafetensorsFile("/dev/zero"); }), "not a regular file");
  EXPECT_CONTAINS(FormatError([&] { return SafetensorsFile(folder.Write("x", "") + std::string("\0y", 2)); }), "NUL");
}

TEST(Safetensors, "refuses files too short for a header and headers too long for the file or the limit") {
  for (size_t size = 0; size < 10; ++size) {
    EXPECT_CONTAINS(FormatError([&] { return OpenBytes(Zeros(size)); }), std::to_string(size) + " bytes, too short");
  }
  const auto with_length = [](uint64_t length) {
    std::string bytes = SafetensorsBytes("{}", Zeros(20));
    std::memcpy(bytes.data(), &length, sizeof(length));
    return FormatError([&] { return OpenBytes(bytes); });
  };
  for (const uint64_t length : {uint64_t{23}, uint64_t{100'000'001}, uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7}) {
    EXPECT_CONTAINS(with_length(length), "a header of " + std::to_string(length) + " bytes does not fit");
  }
  EXPECT_CONTAINS(with_length(0), "does not begin with '{'");
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
  EXPECT_CONTAINS(FormatError([&] { return OpenBytes(pointer); }), "Git LFS pointer");
}

TEST(Safetensors, "refuses a header that is not strict JSON of the format's form") {
  for (const std::string header : {" {}", "[]", "null", "\xef\xbb\xbf{}"}) {
    EXPECT_CONTAINS(OpenError(header, ""), "model.safetensors: the header does not begin with '{'");
  }
  EXPECT_CONTAINS(OpenError("{} {}", ""), "header: text after the end of the JSON value at byte 3");
  EXPECT_CONTAINS(OpenError(std::string("{}\0", 3), ""), "text after the end");
  EXPECT_CONTAINS(OpenError("{\"\xff\":1}", ""), "header: invalid UTF-8 at byte 2");
  EXPECT_CONTAINS(OpenError("{\"a\":1}", ""), "header: expected an object at byte 5");
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[2]", "[0,8]"), Zeros(8)), "expected ',' or '}'");
  EXPECT_CONTAINS(OpenError("{\"a\":{\"dtype\":\"F32\",\"shape\":" + std::string(100'000, '['), ""),
                  "expected a number");
  EXPECT_CONTAINS(OpenError("{\"a\":{\"dtype\":{\"dtype\":" + std::string(100'000, '{'), ""), "expected a string");
}

TEST(Safetensors, "refuses duplicate, missing and unknown keys") {
  const std::string a = TensorHeader("a", "F32", "[2]", "[0,8]");
  EXPECT_CONTAINS(OpenError("{" + a + "," + TensorHeader("b", "F32", "[0]", "[8,8]") + "," + a + "}", Zeros(8)),
                  "duplicate key \"a\"");
  EXPECT_CONTAINS(OpenError("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", ""),
                  "duplicate key \"dtype\" in tensor \"a\"");
  EXPECT_CONTAINS(OpenError("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"shape\":[0],\"data_offsets\":[0,0]}}", ""),
                  "duplicate key \"shape\"");
  EXPECT_CONTAINS(
      OpenError("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0],\"data_offsets\":[0,0]}}", ""),
      "duplicate key \"data_offsets\"");
  EXPECT_CONTAINS(OpenError("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}", ""),
                  "unknown key \"x\" in tensor \"a\"");
  for (const std::string body :
       {"{}", "{\"dtype\":\"F32\",\"shape\":[0]}", "{\"dtype\":\"F32\",\"data_offsets\":[0,0]}",
        "{\"shape\":[0],\"data_offsets\":[0,0]}"}) {
    EXPECT_CONTAINS(OpenError("{\"a\":" + body + "}", ""), "tensor \"a\" must have dtype, shape and data_offsets");
  }
}

TEST(Safetensors, "refuses metadata that does not map strings to strings, once") {
  EXPECT_CONTAINS(OpenError("{\"__metadata__\":[]}", ""), "expected an object");
  EXPECT_CONTAINS(OpenError("{\"__metadata__\":null}", ""), "expected an object");
  EXPECT_CONTAINS(OpenError("{\"__metadata__\":{\"a\":1}}", ""), "expected a string");
  EXPECT_CONTAINS(OpenError("{\"__metadata__\":{\"a\":{}}}", ""), "expected a string");
  EXPECT_CONTAINS(OpenError("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}", ""), "duplicate key \"a\" in __metadata__");
  EXPECT_CONTAINS(OpenError("{\"__metadata__\":{},\"__metadata__\":{}}", ""), "duplicate key \"__metadata__\"");
}

TEST(Safetensors, "refuses names that are empty, too long or hold a NUL") {
  const std::string longest(512, 'n');
  EXPECT_EQ(
      OpenBytes(SafetensorsBytes("{" + TensorHeader(longest, "F32", "[0]", "[0,0]") + "}", ""))->tensors()[0].name,
      longest);
  for (const std::string& name : {std::string(), longest + "n", std::string("a\\u0000b")}) {
    EXPECT_CONTAINS(OpenError("{" + TensorHeader(name, "F32", "[0]", "[0,0]") + "}", ""),
                    "the name of a tensor must have 1 to 512 bytes and no NUL");
  }
}

TEST(Safetensors, "refuses shapes and offsets that are not unsigned integers in plain digits") {
  for (const std::string number : {"1e3", "-0", "-1", "1.0", "18446744073709551616"}) {
    EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[" + number + "]", "[0,4]") + "}", Zeros(4)),
                    "the shape of tensor \"a\" must hold unsigned 64-bit integers");
    EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[1]", "[0," + number + "]") + "}", Zeros(4)),
                    "data_offsets of tensor \"a\" must hold unsigned 64-bit integers");
  }
  for (const std::string value : {"\"1\"", "true", "null", "[1]", "{}"}) {
    EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[" + value + "]", "[0,4]") + "}", Zeros(4)),
                    "header: expected a number");
  }
  for (const std::string value : {"4", "\"[1]\"", "{}", "null"}) {
    EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", value, "[0,4]") + "}", Zeros(4)),
                    "header: expected an array");
  }
  for (const std::string offsets : {"[]", "[0]", "[0,4,4]", "[0,4,4,4]"}) {
    EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[1]", offsets) + "}", Zeros(4)),
                    "tensor \"a\" must have two data_offsets");
  }
}

TEST(Safetensors,
     "refuses shapes beyond rank 8, beyond 2^40 and beyond 64 bits, also those that wrap to the right size") {
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", Zeros(1)),
                  "more than 8 dimensions");
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "U8", "[1099511627777]", "[0,1]") + "}", Zeros(1)),
                  "dimension of 1099511627777, beyond 2^40");
  EXPECT_CONTAINS(
      OpenError("{" + TensorHeader("a", "U8", "[4194305,4194305,211106198978564]", "[0,4]") + "}", Zeros(4)),
      "tensor \"a\" has a dimension of 211106198978564");
  // 4 * 2147549185 * 2147418113 = 2^64 + 4.
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "U8", "[4,2147549185,2147418113]", "[0,4]") + "}", Zeros(4)),
                  "tensor \"a\" has a shape whose size overflows 64 bits");
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[1099511627776,4194304]", "[0,0]") + "}", ""),
                  "overflows 64 bits");
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[1099511627776,1099511627776,0]", "[0,0]") + "}", ""),
                  "overflows 64 bits");
}

TEST(Safetensors, "refuses offsets that are not of the tensor's size, or outside the file") {
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("evil", "F32", "[1000000]", "[0,4]") + "}", Zeros(4)),
                  "tensor \"evil\" needs 4000000 bytes, but its data_offsets are [0, 4]");
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[1]", "[0,8]") + "}", Zeros(8)), "needs 4 bytes");
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[1]", "[4,0]") + "}", Zeros(4)), "in the wrong order");
  EXPECT_CONTAINS(OpenError("{" + TensorHeader("a", "F32", "[2]", "[0,8]") + "}", Zeros(7)),
                  "beyond the 7 bytes of data");
  EXPECT_CONTAINS(
      OpenError("{" + TensorHeader("a", "U8", "[4]", "[18446744073709551611,18446744073709551615]") + "}", Zeros(4)),
      "beyond the 4 bytes of data");
}

TEST(Safetensors, "refuses overlaps, holes and bytes that no tensor owns") {
  const auto two = [](const std::string& first, const std::string& second, size_t bytes) {
    return OpenError("{" + TensorHeader("a", "U8", "[4]", first) + "," + TensorHeader("b", "U8", "[4]", second) + "}",
                     Zeros(bytes));
  };
  EXPECT_EQ(two("[0,4]", "[4,8]", 8), std::string());
  EXPECT_CONTAINS(two("[0,4]", "[3,7]", 8),
                  "tensor \"b\" begins at byte 3 of the data, inside another tensor; expected 4");
  EXPECT_CONTAINS(two("[0,4]", "[0,4]", 8), "inside another tensor");
  EXPECT_CONTAINS(two("[0,4]", "[5,9]", 9), "tensor \"b\" begins at byte 5 of the data, after a hole; expected 4");
  EXPECT_CONTAINS(two("[1,5]", "[5,9]", 9), "tensor \"a\" begins at byte 1 of the data, after a hole; expected 0");
  EXPECT_CONTAINS(two("[0,4]", "[4,8]", 9), "the tensors end at byte 8 of the data, the file holds 9");
  EXPECT_CONTAINS(OpenError("{}", "x"), "the tensors end at byte 0 of the data, the file holds 1");
  EXPECT_CONTAINS(
      OpenError("{" + TensorHeader("a", "U8", "[4]", "[0,4]") + "," + TensorHeader("e", "U8", "[0]", "[2,2]") + "}",
                Zeros(4)),
      "inside another tensor");
}

TEST(Safetensors, "refuses more than a million tensors") {
  std::string header = "{";
  for (int i = 0; i <= 1'000'000; ++i) {
    header += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  }
  EXPECT_CONTAINS(OpenError(header + "}", ""), "more than 1000000 tensors");
}

TEST(Safetensors, "fails with a typed error when the file is cut at any byte") {
  const std::string whole = SafetensorsBytes(kTwoTensors, Zeros(28));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_ERROR(ErrorCode::kModelFormat, OpenBytes(whole.substr(0, size)));
  }
  EXPECT_EQ(OpenBytes(whole)->tensors().size(), 2u);
}

TEST(Safetensors, "loads or fails with a typed error under 10,000 random bit flips, and stays in bounds") {
  const std::string whole = SafetensorsBytes(kTwoTensors, Zeros(28));
  const TempFolder folder;
  std::mt19937_64 random(42);
  int loaded = 0;
  for (int round = 0; round < 10'000; ++round) {
    std::string bytes = whole;
    const int flips = 1 + static_cast<int>(random() % 3);
    for (int i = 0; i < flips; ++i) {
      const size_t bit = random() % (bytes.size() * 8);
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    }
    const std::string path = folder.Write("model.safetensors", bytes);
    try {
      const SafetensorsFile file(path);
      ++loaded;
      size_t sum = 0;
      for (const SafetensorsTensor& tensor : file.tensors()) sum += BytesOf(file, tensor).size();
      EXPECT_EQ(sum, bytes.size() - 8 - kTwoTensors.size());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kModelFormat) test::Fail(__FILE__, __LINE__, error.what());
    }
  }
  // Flips in names and data leave a sound file, most flips in the header do not.
  EXPECT_TRUE(loaded > 500 && loaded < 9'500);
}

TEST(Safetensors, "reads on when the file was replaced or deleted") {
  const TempFolder folder;
  const std::string path = folder.Write("model.safetensors", SafetensorsBytes(kTwoTensors, Zeros(24) + "wxyz"));
  const SafetensorsFile file(path);
  EXPECT_EQ(rename(folder.Write("other", "x").c_str(), path.c_str()), 0);
  EXPECT_EQ(BytesOf(file, file.tensors()[1]), std::string("wxyz"));
  EXPECT_EQ(unlink(path.c_str()), 0);
  EXPECT_EQ(BytesOf(file, file.tensors()[1]), std::string("wxyz"));
}

TEST(Safetensors, "fails with a typed error where the file was cut after it was opened, and reads what is left") {
  const TempFolder folder;
  const std::string bytes = SafetensorsBytes(kTwoTensors, Zeros(28));
  const std::string path = folder.Write("model.safetensors", bytes);
  const SafetensorsFile file(path);
  EXPECT_EQ(truncate(path.c_str(), static_cast<off_t>(bytes.size() - 2)), 0);
  EXPECT_EQ(BytesOf(file, file.tensors()[0]), Zeros(24));
  EXPECT_CONTAINS(FormatError([&] { return BytesOf(file, file.tensors()[1]); }),
                  "model.safetensors: ended before byte " + std::to_string(bytes.size() - 2) + " while it was read");
}

}  // namespace
}  // namespace heddle
