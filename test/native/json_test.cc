#include "base/json.h"

#include <cmath>
#include <cstring>

#include "base/quote.h"
#include "base/utf8.h"
#include "loader_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::FormatError;

Json Parse(std::string_view text) { return Json::Parse(text, "test.json"); }

std::string ParseError(std::string_view text) {
  return FormatError([&] { return Parse(text); });
}

std::string Nested(int depth) {
  return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
}

TEST(Json, "reads every type, nested, with white space anywhere") {
  const Json json =
      Parse(" { \"a\" : [ 1 , -2.5e1 , true , false , null ] ,\n\t\"b\":{\"c\":\"x\"},\"d\":[],\"e\":{}}\r\n");
  EXPECT_TRUE(json.IsObject());
  EXPECT_EQ(json.AsObject().size(), 4u);
  EXPECT_EQ(json.AsObject()[1].first, std::string("b"));
  const std::vector<Json>& a = json.Find("a")->AsArray();
  EXPECT_EQ(a.size(), 5u);
  EXPECT_EQ(a[0].AsDouble(), 1.0);
  EXPECT_EQ(a[1].AsDouble(), -25.0);
  EXPECT_TRUE(a[2].AsBool());
  EXPECT_TRUE(!a[3].AsBool());
  EXPECT_TRUE(a[4].IsNull());
  EXPECT_EQ(json.Find("b")->Find("c")->AsString(), std::string("x"));
  EXPECT_TRUE(json.Find("d")->IsArray() && json.Find("d")->AsArray().empty());
  EXPECT_TRUE(json.Find("e")->IsObject() && json.Find("e")->AsObject().empty());
}

TEST(Json, "finds nothing in a missing key and in what is not an object") {
  const Json json = Parse("{\"a\":[1]}");
  EXPECT_TRUE(json.Find("b") == nullptr);
  EXPECT_TRUE(json.Find("a")->Find("a") == nullptr);
  EXPECT_TRUE(Parse("null").Find("") == nullptr);
}

TEST(Json, "tells integers in plain digits from every other spelling of a number") {
  EXPECT_EQ(Parse("0").AsUint64().value(), 0u);
  EXPECT_EQ(Parse("18446744073709551615").AsUint64().value(), UINT64_MAX);
  for (const char* text : {"18446744073709551616", "1e3", "-0", "-1", "1.0", "0.5", "1E+2"}) {
    EXPECT_TRUE(!Parse(text).AsUint64().has_value());
  }
}

TEST(Json, "rounds numbers to the nearest double, and those beyond double to infinity or zero") {
  EXPECT_EQ(Parse("0.1").AsDouble(), 0.1);
  EXPECT_EQ(Parse("1e-5").AsDouble(), 1e-5);
  EXPECT_EQ(Parse("9007199254740993").AsDouble(), 9007199254740992.0);
  EXPECT_EQ(Parse("1e999").AsDouble(), INFINITY);
  EXPECT_EQ(Parse("-1e999").AsDouble(), -INFINITY);
  EXPECT_EQ(Parse("1" + std::string(400, '0')).AsDouble(), INFINITY);
  EXPECT_EQ(Parse("1e99999999999999999999").AsDouble(), INFINITY);
  EXPECT_EQ(Parse("1e-999").AsDouble(), 0.0);
  EXPECT_EQ(Parse("0." + std::string(400, '0') + "1").AsDouble(), 0.0);
  EXPECT_EQ(Parse("0." + std::string(400, '0') + "1e402").AsDouble(), 10.0);
  EXPECT_TRUE(std::signbit(Parse("-0").AsDouble()));
}

TEST(Json, "refuses numbers that JSON does not have") {
  for (const char* text :
       {"01", "-", "+1", ".5", "1.", "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity", "1_000", "--1"}) {
    EXPECT_ERROR(ErrorCode::kModelFormat, Parse(text));
  }
}

TEST(Json, "decodes escapes, surrogate pairs included") {
  EXPECT_EQ(Parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"").AsString(), std::string("\"\\/\b\f\n\r\t"));
  EXPECT_EQ(Parse("\"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"").AsString(),
            std::string("A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"));
  EXPECT_EQ(Parse("\"a\\u0000b\"").AsString(), std::string("a\0b", 3));
  EXPECT_EQ(Parse("\"\xf0\x9f\x98\x80\"").AsString(), std::string("\xf0\x9f\x98\x80"));
}

TEST(Json, "refuses lone surrogates, unknown escapes, raw control characters and unfinished strings") {
  for (const char* text :
       {"\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud800\\ud800\"", "\"\\ud800x\"", "\"\\x41\"",
        "\"\\u12\"", "\"\\u12g4\"", "\"\\u+123\"", "\"a\nb\"", "\"abc", "\"abc\\", "\"\\u"}) {
    EXPECT_ERROR(ErrorCode::kModelFormat, Parse(text));
  }
}

TEST(Json, "refuses bytes that are not UTF-8, and says where") {
  EXPECT_CONTAINS(ParseError("{\"a\":\"\xff\"}"), "test.json: invalid UTF-8 at byte 6");
  for (const char* bytes : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf0\x80\x80\xaf",
                            "\xf4\x90\x80\x80", "\xf5\x80\x80\x80"}) {
    EXPECT_CONTAINS(ParseError("\"" + std::string(bytes) + "\""), "invalid UTF-8 at byte 1");
  }
}

TEST(Json, "refuses what is not one JSON value") {
  for (const char* text :
       {"",      " ",       "{",        "[",          "[1",    "[1,",   "[1,]",          "[,1]",
        "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:2}", "{\"a\":1]",     "[1}",
        "]",     "nul",     "tru",      "True",       "1 2",   "{} {}", "[] // comment", "\xef\xbb\xbf{}",
        "'a'"}) {
    EXPECT_ERROR(ErrorCode::kModelFormat, Parse(text));
  }
  EXPECT_ERROR(ErrorCode::kModelFormat, Parse(std::string_view("1\0", 2)));
  EXPECT_CONTAINS(ParseError("[1, 2] x"), "test.json: text after the end of the JSON value at byte 7");
}

TEST(Json, "refuses duplicate keys by name, few or many, escaped or not") {
  EXPECT_CONTAINS(ParseError("{\"a\":1,\"b\":2,\"\\u0061\":3}"), "duplicate key \"a\" at byte 13");
  std::string many = "{";
  for (int i = 0; i < 1000; ++i) many += "\"k" + std::to_string(i) + "\":0,";
  EXPECT_CONTAINS(ParseError(many + "\"k500\":1}"), "duplicate key \"k500\"");
  EXPECT_TRUE(Parse(many + "\"k1000\":1}").AsObject().size() == 1001);
  EXPECT_TRUE(Parse("{\"a\":{\"a\":1}}").IsObject());
}

TEST(Json, "allows kMaxDepth levels of nesting and refuses one more, however many follow") {
  EXPECT_TRUE(Parse(Nested(Json::kMaxDepth)).IsArray());
  EXPECT_ERROR(ErrorCode::kModelFormat, Parse(Nested(Json::kMaxDepth + 1)));
  EXPECT_CONTAINS(ParseError(std::string(10'000'000, '[')), "levels of nesting");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_CONTAINS(ParseError(objects), "levels of nesting");
}

TEST(Json, "bounds the number of values") {
  std::string text = "[";
  for (int i = 0; i < Json::kMaxValues; ++i) text += "0,";
  EXPECT_CONTAINS(ParseError(text + "0]"), "more than");
}

TEST(Json, "fails with kInternal when asked for a type that is not there") {
  const Json json = Parse("[1]");
  EXPECT_ERROR(ErrorCode::kInternal, json.AsObject());
  EXPECT_ERROR(ErrorCode::kInternal, json.AsString());
  EXPECT_ERROR(ErrorCode::kInternal, json.AsArray()[0].AsBool());
  EXPECT_ERROR(ErrorCode::kInternal, json.AsUint64());
}

TEST(Json, "survives truncation of a document at every byte") {
  const std::string text = "{\"a\":[1,-2.5e3,\"\\u00e9\\ud83d\\ude00\xc3\xa9\",true,null],\"b\":{\"c\":{}}}";
  for (size_t length = 0; length < text.size(); ++length) {
    // A copy of exactly this length, so that a read beyond it is a read beyond the allocation.
    const std::vector<char> prefix(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_ERROR(ErrorCode::kModelFormat, Parse(std::string_view(prefix.data(), prefix.size())));
  }
  EXPECT_TRUE(Parse(text).IsObject());
}

TEST(Quote, "is short, printable UTF-8 whatever the bytes") {
  EXPECT_EQ(Quote("plain"), std::string("\"plain\""));
  EXPECT_EQ(Quote(std::string_view("a\n\"\\\0\x7f", 6)), std::string("\"a\\u000a\\\"\\\\\\u0000\\u007f\""));
  EXPECT_EQ(Quote("\xff"), std::string("\"\xef\xbf\xbd\""));
  std::string wide;
  for (int i = 0; i < 1000; ++i) wide += "\xe2\x82\xac";
  const std::string quoted = Quote(wide);
  EXPECT_TRUE(quoted.size() < 100);
  EXPECT_EQ(FindInvalidUtf8(quoted), quoted.size());
}

}  // namespace
}  // namespace heddle
