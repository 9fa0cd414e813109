// JSON that is changed as text.
#include "compress/json_text.h"

#include "base/json.h"
#include "loader_testing.h"

namespace heddle {
namespace {

TEST(WithMember, "adds a member at the end, or replaces the one there is, and keeps the rest to the byte") {
  EXPECT_EQ(WithMember("{ \"a\" : 1e-05,\n \"b\": [1, {}] }\n", "c", "{}", ""),
            "{ \"a\" : 1e-05,\n \"b\": [1, {}],\n  \"c\": {} }\n");
  EXPECT_EQ(WithMember(R"({"a": {"c": "}"}, "c": [null, true, -1.5], "d": "\""})", "c", "2", ""),
            R"({"a": {"c": "}"}, "c": 2, "d": "\""})");
  EXPECT_EQ(WithMember(" {} ", "c", "2", ""), "{\n  \"c\": 2\n} ");
}

TEST(WithMember, "refuses what is no object") {
  EXPECT_CONTAINS(test::FormatError([] { return WithMember("[1]", "c", "2", "config.json"); }), "config.json");
}

TEST(JsonString, "is read back as what it was") {
  const std::string text = "a \"b\" \\ \n \x01 é";
  EXPECT_EQ(Json::Parse(JsonString(text), "").AsString(), text);
}

}  // namespace
}  // namespace heddle
