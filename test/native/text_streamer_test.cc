#include "text/text_streamer.h"

#include <algorithm>
#include <random>

#include "base/utf8.h"
#include "test.h"

namespace heddle {
namespace {

const std::string kReplacement = "\xef\xbf\xbd";

// A vocabulary of the given tokens, the last `num_special` of them special.
std::shared_ptr<const Vocabulary> MakeVocabulary(const std::vector<std::string>& tokens, size_t num_special = 0) {
  std::string bytes;
  std::vector<uint32_t> offsets = {0};
  std::vector<uint8_t> special;
  for (size_t i = 0; i < tokens.size(); ++i) {
    bytes += tokens[i];
    offsets.push_back(static_cast<uint32_t>(bytes.size()));
    special.push_back(i + num_special >= tokens.size());
  }
  return std::make_shared<Vocabulary>(bytes, offsets, special);
}

struct Result {
  std::vector<std::string> emitted;  // one for each token, then the rest
  std::optional<int> stop_index;

  std::string text() const {
    std::string text;
    for (const std::string& piece : emitted) text += piece;
    return text;
  }
};

// Streams `pieces`, each a token of its own; the first `num_unmatched` with match_stop false.
Result StreamPieces(const std::vector<std::string>& pieces, const TextStreamerOptions& options,
                    size_t num_unmatched = 0) {
  TextStreamer streamer(MakeVocabulary(pieces), options);
  Result result;
  for (size_t i = 0; i < pieces.size() && !streamer.stop_index(); ++i) {
    result.emitted.push_back(streamer.Put(static_cast<int32_t>(i), i >= num_unmatched));
  }
  result.stop_index = streamer.stop_index();
  if (!result.stop_index) result.emitted.push_back(streamer.Finish());
  return result;
}

std::vector<std::string> Emitted(const std::vector<std::string>& pieces, const TextStreamerOptions& options) {
  return StreamPieces(pieces, options).emitted;
}

TEST(TextStreamer, "emits each token at once when there is nothing to wait for") {
  EXPECT_TRUE((Emitted({"Hello", ",", "", " world"}, {}) == std::vector<std::string>{"Hello", ",", "", " world", ""}));
}

TEST(TextStreamer, "emits a character with the token that completes it, byte tokens included") {
  EXPECT_TRUE((Emitted({"a\xf0", "\x9f", "\xa6",
                        "\x99"
                        "b"},
                       {}) == std::vector<std::string>{"a", "", "",
                                                       "\xf0\x9f\xa6\x99"
                                                       "b",
                                                       ""}));
}

TEST(TextStreamer, "replaces what never becomes a character, at the end too") {
  EXPECT_TRUE((Emitted({"\xe2\x82", "x\xff", "\xc3"}, {}) ==
               std::vector<std::string>{"", kReplacement + "x" + kReplacement, "", kReplacement}));
}

TEST(TextStreamer, "gives nothing for ids outside the vocabulary") {
  TextStreamer streamer(MakeVocabulary({"a"}), {});
  EXPECT_EQ(streamer.Put(-1), "");
  EXPECT_EQ(streamer.Put(1), "");
  EXPECT_EQ(streamer.Put(0), "a");
}

TEST(TextStreamer, "skips special tokens, or joins them to the text by nothing") {
  const auto vocabulary = MakeVocabulary({"a", "b", "<s>", "</s>"}, 2);
  const std::vector<int32_t> ids = {2, 2, 0, 3, 1, 3, 2};
  EXPECT_EQ(Decode(vocabulary, ids, true), "ab");
  EXPECT_EQ(Decode(vocabulary, ids, false), "<s><s>a</s>b</s><s>");
}

TEST(TextStreamer, "ends a character that a special token interrupts") {
  const auto vocabulary = MakeVocabulary({"\xe2\x82", "\xac", "<s>"}, 1);
  const std::vector<int32_t> ids = {0, 2, 1};
  EXPECT_EQ(Decode(vocabulary, ids, true), kReplacement + kReplacement);
  EXPECT_EQ(Decode(vocabulary, ids, false), kReplacement + "<s>" + kReplacement);
  const std::vector<int32_t> broken = {3, 1};
  EXPECT_EQ(Decode(MakeVocabulary({"a", "\xac", "b", "\xe2\x82"}, 1), broken, false), kReplacement + kReplacement);
  const std::vector<int32_t> whole = {0, 1, 2};
  EXPECT_EQ(Decode(vocabulary, whole, true), "\xe2\x82\xac");
}

TEST(TextStreamer, "ends before a stop string, in the middle of a token too, and names it") {
  const Result result = StreamPieces({"one ", "two END three"}, {.stop = {"never", "END"}});
  EXPECT_EQ(result.text(), "one two ");
  EXPECT_EQ(result.stop_index.value_or(-1), 1);
}

TEST(TextStreamer, "includes the stop string, and nothing after it, when asked") {
  const TextStreamerOptions options{.stop = {"END"}, .include_stop_str_in_output = true};
  EXPECT_EQ(StreamPieces({"one E", "N", "D three"}, options).text(), "one END");
}

TEST(TextStreamer, "holds back only what may begin a stop string, and nothing when stop strings are included") {
  TextStreamerOptions options{.stop = {"\n\nUser:", "User"}};
  const std::vector<std::string> pieces = {"Hi\n", "\n", "U", "nited", " Us"};
  EXPECT_TRUE((Emitted(pieces, options) == std::vector<std::string>{"Hi", "", "", "\n\nUnited", " ", "Us"}));
  options.include_stop_str_in_output = true;
  EXPECT_TRUE((Emitted(pieces, options) == std::vector<std::string>{"Hi\n", "\n", "U", "nited", " Us", ""}));
}

TEST(TextStreamer, "finds a stop string of several bytes a character, split inside a character") {
  const Result result =
      StreamPieces({"x\xe2\x82", "\xac\xf0", "\x9f\xa6\x99", "y"}, {.stop = {"\xe2\x82\xac\xf0\x9f\xa6\x99"}});
  EXPECT_EQ(result.text(), "x");
  EXPECT_EQ(result.emitted.size(), size_t{3});
}

TEST(TextStreamer, "takes the stop string that ends first, and of those that end together the one listed first") {
  const auto stop_of = [](const std::string& text, const std::vector<std::string>& stop) {
    const Result result = StreamPieces({text}, {.stop = stop});
    return result.text() + "|" + std::to_string(result.stop_index.value_or(-1));
  };
  EXPECT_EQ(stop_of("xabcdy", {"abcd", "bc"}), "xa|1");
  EXPECT_EQ(stop_of("xabcy", {"abc", "bc"}), "x|0");
  EXPECT_EQ(stop_of("xabcy", {"bc", "abc"}), "xa|0");
  EXPECT_EQ(stop_of("xabcy", {"abc", "ab"}), "x|1");
}

TEST(TextStreamer, "finds a stop string that overlaps its own false start") {
  EXPECT_EQ(StreamPieces({"aa", "ab", "x"}, {.stop = {"aab"}}).text(), "a");
  EXPECT_EQ(StreamPieces({"aba", "bab", "ac"}, {.stop = {"abac"}}).text(), "abab");
}

TEST(TextStreamer, "passes over a stop string that ends before matching starts, but not one that ends after") {
  const TextStreamerOptions options{.stop = {"ab"}};
  EXPECT_EQ(StreamPieces({"xab", "yab", "z"}, options, 1).text(), "xaby");
  EXPECT_EQ(StreamPieces({"xa", "by"}, options, 1).text(), "x");
  EXPECT_EQ(StreamPieces({"xab", "y"}, options, 2).text(), "xaby");
  EXPECT_EQ(StreamPieces({"xaa", "a"}, {.stop = {"aa"}}, 1).text(), "xa");
}

TEST(TextStreamer, "cannot be used after its end") {
  TextStreamer stopped(MakeVocabulary({"a"}), {.stop = {"a"}});
  stopped.Put(0);
  EXPECT_ERROR(ErrorCode::kInternal, stopped.Put(0));
  EXPECT_ERROR(ErrorCode::kInternal, stopped.Finish());
  TextStreamer finished(MakeVocabulary({"a"}), {});
  finished.Finish();
  EXPECT_ERROR(ErrorCode::kInternal, finished.Put(0));
  EXPECT_ERROR(ErrorCode::kInternal, TextStreamer(MakeVocabulary({"a"}), {.stop = {""}}));
}

// What a stream of `texts` must give, found by searching the whole text at every length.
Result Reference(const std::vector<std::string>& texts, const TextStreamerOptions& options, size_t num_unmatched) {
  Result result;
  std::string text;
  for (size_t token = 0; token < texts.size(); ++token) {
    for (const char byte : texts[token]) {
      text += byte;
      for (size_t s = 0; s < options.stop.size() && token >= num_unmatched; ++s) {
        if (!text.ends_with(options.stop[s])) continue;
        result.stop_index = static_cast<int>(s);
        if (!options.include_stop_str_in_output) text.resize(text.size() - options.stop[s].size());
        result.emitted = {text};
        return result;
      }
    }
  }
  result.emitted = {text};
  return result;
}

// Bytes at the end of `text` that a stream may not show yet.
size_t MustHold(const std::string& text, const TextStreamerOptions& options) {
  size_t hold = 0;
  for (const std::string& stop : options.stop) {
    for (size_t length = 1; length < stop.size(); ++length) {
      if (text.ends_with(stop.substr(0, length))) hold = std::max(hold, length);
    }
  }
  return options.include_stop_str_in_output ? 0 : hold;
}

// Few different characters, of one to four bytes, so that stop strings and their beginnings are frequent.
std::string RandomText(std::mt19937& random, size_t max_characters) {
  static const std::vector<std::string> characters = {"a", "b", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\xa6\x99"};
  const size_t num_kinds = 2 + random() % (characters.size() - 1);
  std::string text;
  for (size_t i = random() % (max_characters + 1); i > 0; --i) text += characters[random() % num_kinds];
  return text;
}

std::vector<std::string> RandomSplit(std::mt19937& random, const std::string& bytes) {
  std::vector<std::string> pieces(1);
  const unsigned rarity = 1 + random() % 5;
  for (const char byte : bytes) {
    if (random() % rarity == 0) pieces.emplace_back();
    pieces.back() += byte;
  }
  return pieces;
}

TEST(TextStreamer, "streams any text, cut anywhere, as a search of the whole text would, showing all it may at once") {
  std::mt19937 random(4);
  int stopped = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = RandomText(random, 20);
    if (!bytes.empty() && random() % 4 == 0) bytes[random() % bytes.size()] = static_cast<char>(random());
    const std::vector<std::string> pieces = RandomSplit(random, bytes);
    TextStreamerOptions options{.include_stop_str_in_output = random() % 3 == 0};
    for (size_t i = random() % 4; i > 0; --i) {
      const std::string stop = RandomText(random, 5);
      if (!stop.empty()) options.stop.push_back(stop);
    }
    const size_t num_unmatched = random() % 2 == 0 ? 0 : random() % (pieces.size() + 1);

    const Result decoded = StreamPieces(pieces, {});
    const Result result = StreamPieces(pieces, options, num_unmatched);
    std::vector<std::string> texts(decoded.emitted.begin(), decoded.emitted.end() - 1);
    Result expected = Reference(texts, options, num_unmatched);
    if (!expected.stop_index) expected.emitted.push_back(decoded.emitted.back());
    EXPECT_EQ(result.text(), expected.text());
    EXPECT_EQ(result.stop_index.value_or(-1), expected.stop_index.value_or(-1));
    stopped += expected.stop_index ? 1 : 0;

    std::string so_far;
    std::string shown;
    for (size_t i = 0; i + 1 < result.emitted.size(); ++i) {
      so_far += texts[i];
      shown += result.emitted[i];
      EXPECT_EQ(FindInvalidUtf8(result.emitted[i]), result.emitted[i].size());
      EXPECT_EQ(shown.size(), so_far.size() - MustHold(so_far, options));
    }
  }
  EXPECT_TRUE(stopped > 2000 && stopped < 18000);
}

}  // namespace
}  // namespace heddle
