#include "loader/name_pattern.h"

#include "loader_testing.h"
#include "test.h"

namespace heddle {
namespace {

bool Matches(const std::string& pattern, const std::string& name) { return NamePattern(pattern, "x").Matches(name); }

std::string Refusal(const std::string& pattern) {
  try {
    NamePattern(pattern, "config.json: ignore").Matches("model");
  } catch (const Error& error) {
    return error.code() == ErrorCode::kUnsupportedModel ? error.what() : ErrorCodeName(error.code());
  }
  return "";
}

const std::string kName = "model.layers.12.self_attn.q_proj";

TEST(NamePattern, "matches from the first character on, though not to the last") {
  EXPECT_TRUE(Matches("model", kName));
  EXPECT_TRUE(!Matches("layers", kName));
  EXPECT_TRUE(Matches("", kName) && Matches("^model", kName));
  EXPECT_TRUE(Matches(".*q_proj$", kName) && !Matches(".*q_pro$", kName));
  EXPECT_TRUE(!Matches("model$", kName) && Matches("$", ""));
  EXPECT_TRUE(!Matches("model.layers.12.self_attn.q_proj.weight", kName));
}

TEST(NamePattern, "knows the syntax that checkpoints use") {
  for (const char* pattern : {".*\\.q_proj",
                              "model\\.layers\\.\\d+\\.",
                              "model.layers.1[0-9].*",
                              "model.layers.[^3-9]2",
                              ".*(k|q|v)_proj",
                              ".*(?:mlp|self_attn)\\..*",
                              "(model|lm_head)+",
                              ".*[qk]_proj$",
                              "(?!lm_head).*q_proj",
                              "(?=.*self)model",
                              "m.{3}l",
                              "model(\\.\\w+){3}.q_proj$",
                              "model(\\.\\w+){2,}$",
                              "model(\\.\\w+){0,9}?$",
                              "x?model",
                              ".*?\\d\\d",
                              "[]m]odel",
                              "[\\w.]+$",
                              "\\D+\\d\\d",
                              "(a|b|)model",
                              "m\\S*$"}) {
    EXPECT_TRUE(Matches(pattern, kName));
  }
  for (const char* pattern : {".*\\.qproj", "model\\.layers\\.\\d\\.", "model.layers.1[3-9].*", "model.layers.[^1-9]",
                              ".*(k|v)_proj", "(?!.*q_proj).*", "(?=.*mlp)model", "m.{4}l", "model(\\.\\w+){5}",
                              "model(\\.\\w+){5,}", "\\d", "\\s", "model\\W\\W", "[^m]", "(a|b)model"}) {
    EXPECT_TRUE(!Matches(pattern, kName));
  }
}

TEST(NamePattern, "takes a hyphen at the end of a set for itself") {
  EXPECT_TRUE(Matches("[\\.-]+", "-.-") && Matches("[a-]+", "a-a"));
  EXPECT_TRUE(!Matches("[\\.-]", "z"));
}

TEST(NamePattern, "refuses what it does not know by pattern, reason and place") {
  EXPECT_CONTAINS(Refusal("a(b"),
                  "config.json: ignore: the pattern \"a(b\" is not supported: a ( without its ) at byte 3");
  EXPECT_CONTAINS(Refusal("a)b"), "a ) without its (");
  EXPECT_CONTAINS(Refusal("*a"), "an unexpected *");
  EXPECT_CONTAINS(Refusal("a**"), "an unexpected *");
  EXPECT_CONTAINS(Refusal("a{2"), "a malformed {m,n}");
  EXPECT_CONTAINS(Refusal("a{3,2}"), "a malformed {m,n}");
  EXPECT_CONTAINS(Refusal("a{100000}"), "a malformed {m,n}");
  EXPECT_CONTAINS(Refusal("[z-a]"), "a malformed range");
  EXPECT_CONTAINS(Refusal("[\\.-z]"), "a range that begins with an escape");
  EXPECT_CONTAINS(Refusal("[\\w-z]"), "a range that begins with an escape");
  EXPECT_CONTAINS(Refusal("[abc"), "it ends too early");
  EXPECT_CONTAINS(Refusal("abc\\"), "it ends too early");
  EXPECT_CONTAINS(Refusal("\\bq"), "the escape \\b");
  EXPECT_CONTAINS(Refusal("(a)\\1"), "the escape \\1");
  EXPECT_CONTAINS(Refusal("(?i)a"), "an unexpected (");
  EXPECT_CONTAINS(Refusal("(?<=a)b"), "an unexpected (");
  EXPECT_CONTAINS(Refusal(std::string(17, '(') + std::string(17, ')')), "groups are nested too deep");
  EXPECT_CONTAINS(Refusal(std::string(2000, 'a')), "longer than 1024 bytes");
}

TEST(NamePattern, "answers or refuses soon, whatever is repeated") {
  const std::string name(500, 'a');
  EXPECT_TRUE(!Matches("(a+)+b", name) && !Matches("(a|a)*b", name) && !Matches("(.*)*(.*)*(.*)*b", name));
  EXPECT_ERROR(ErrorCode::kUnsupportedModel, NamePattern("(((a?){1000}){1000}){1000}b", "x").Matches(name));
  EXPECT_ERROR(ErrorCode::kUnsupportedModel,
               NamePattern("(?!(?!(?!.*x).*).*).*(((a?){999}){999}){999}", "x").Matches(name));
}

}  // namespace
}  // namespace heddle
