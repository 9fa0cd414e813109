#include "text/utf8_decoder.h"

#include <random>
#include <vector>

#include "test.h"

namespace heddle {
namespace {

// `bytes` decoded in pieces that end at the given offsets.
std::string DecodeInPieces(const std::string& bytes, const std::vector<size_t>& cuts) {
  Utf8Decoder decoder;
  std::string text;
  size_t begin = 0;
  for (const size_t cut : cuts) {
    decoder.Decode(std::string_view(bytes).substr(begin, cut - begin), text);
    begin = cut;
  }
  decoder.Decode(std::string_view(bytes).substr(begin), text);
  decoder.Flush(text);
  return text;
}

std::string DecodeWhole(const std::string& bytes) { return DecodeInPieces(bytes, {}); }

std::string Replacements(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "\xef\xbf\xbd";
  return text;
}

// The well-formed sequences as the Unicode standard's table 3-7 lists them: the range of each byte.
std::string ReferenceDecode(const std::string& bytes) {
  struct Range {
    int low, high;
  };
  constexpr Range kAny = {0x80, 0xbf};
  const std::vector<std::vector<Range>> rows = {
      {{0x00, 0x7f}},
      {{0xc2, 0xdf}, kAny},
      {{0xe0, 0xe0}, {0xa0, 0xbf}, kAny},
      {{0xe1, 0xec}, kAny, kAny},
      {{0xed, 0xed}, {0x80, 0x9f}, kAny},
      {{0xee, 0xef}, kAny, kAny},
      {{0xf0, 0xf0}, {0x90, 0xbf}, kAny, kAny},
      {{0xf1, 0xf3}, kAny, kAny, kAny},
      {{0xf4, 0xf4}, {0x80, 0x8f}, kAny, kAny},
  };
  std::string text;
  for (size_t at = 0; at < bytes.size();) {
    size_t longest = 1;
    bool complete = false;
    for (const std::vector<Range>& row : rows) {
      size_t length = 0;
      while (length < row.size() && at + length < bytes.size()) {
        const int byte = static_cast<uint8_t>(bytes[at + length]);
        if (byte < row[length].low || byte > row[length].high) break;
        ++length;
      }
      longest = std::max(longest, length);
      complete = complete || length == row.size();
    }
    text += complete ? bytes.substr(at, longest) : Replacements(1);
    at += longest;
  }
  return text;
}

TEST(Utf8Decoder, "keeps well-formed text of every length of character") {
  const std::string text =
      "a\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf";
  EXPECT_EQ(DecodeWhole(text), text);
}

TEST(Utf8Decoder, "replaces maximal subparts as in the examples of the Unicode standard") {
  EXPECT_EQ(DecodeWhole("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), Replacements(8) + "A");
  EXPECT_EQ(DecodeWhole("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), Replacements(8) + "A");
  EXPECT_EQ(DecodeWhole("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), Replacements(5) + "A" + Replacements(2) + "B");
  EXPECT_EQ(DecodeWhole("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), Replacements(4) + "A");
}

TEST(Utf8Decoder, "waits for the rest of a character and replaces what the end cuts off, once") {
  Utf8Decoder decoder;
  std::string text;
  for (const char* byte : {"\xf0", "\x9f", "\xa6"}) decoder.Decode(byte, text);
  EXPECT_EQ(text, "");
  decoder.Decode("\x99!", text);
  EXPECT_EQ(text, "\xf0\x9f\xa6\x99!");
  decoder.Decode("\xf0\x9f\xa6", text);
  decoder.Flush(text);
  decoder.Flush(text);
  EXPECT_EQ(text, "\xf0\x9f\xa6\x99!" + Replacements(1));
}

TEST(Utf8Decoder, "replaces a broken beginning as soon as the next byte shows it") {
  Utf8Decoder decoder;
  std::string text;
  decoder.Decode("\xe2\x82", text);
  EXPECT_EQ(text, "");
  decoder.Decode("a", text);
  EXPECT_EQ(text, Replacements(1) + "a");
  decoder.Decode("\xff", text);
  EXPECT_EQ(text, Replacements(1) + "a" + Replacements(1));
}

TEST(Utf8Decoder, "gives the same text however random bytes are cut, and the one the standard's table gives") {
  std::mt19937 random(1);
  // Bytes at the edges of the table's ranges, so that they often nearly make characters.
  const std::string alphabet =
      "A\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff";
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(random() % 12, '\0');
    for (char& byte : bytes) byte = alphabet[random() % alphabet.size()];
    std::vector<size_t> cuts;
    for (size_t i = 0; i <= bytes.size(); ++i) {
      if (random() % 3 == 0) cuts.push_back(i);
    }
    EXPECT_EQ(DecodeInPieces(bytes, cuts), ReferenceDecode(bytes));
  }
}

}  // namespace
}  // namespace heddle
