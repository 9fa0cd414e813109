#include "scheduler/kv_cache_manager.h"

#include <numeric>
#include <random>

#include "test.h"

namespace heddle {
namespace {

constexpr int kBlockSize = 4;

uint64_t ConstantHash(const PrefixKey&, uint64_t) { return 7; }

std::vector<int32_t> Tokens(int count, int first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// A sequence that computed all of its tokens.
BlockTable Computed(KVCacheManager& manager, const std::vector<int32_t>& tokens, std::string_view salt = "") {
  BlockTable table;
  EXPECT_TRUE(manager.AllocateSlots(static_cast<int>(tokens.size()), table));
  manager.CacheBlocks(salt, tokens, table);
  return table;
}

size_t HitBlocks(const KVCacheManager& manager, const std::vector<int32_t>& tokens, std::string_view salt = "") {
  return manager.FindPrefix(salt, tokens).size();
}

TEST(KVCacheManager, "gives a table as many blocks as its tokens need, and no more") {
  KVCacheManager manager(10, kBlockSize, true);
  BlockTable table;
  EXPECT_TRUE(manager.AllocateSlots(1, table));
  EXPECT_EQ(table.size(), 1);
  EXPECT_TRUE(manager.AllocateSlots(4, table));
  EXPECT_EQ(table.size(), 1);
  EXPECT_TRUE(manager.AllocateSlots(5, table));
  EXPECT_EQ(table.size(), 2);
  EXPECT_EQ(manager.num_free_blocks(), 7);
}

TEST(KVCacheManager, "changes nothing when it cannot satisfy the whole allocation") {
  KVCacheManager manager(4, kBlockSize, true);
  BlockTable table;
  EXPECT_TRUE(manager.AllocateSlots(4, table));
  EXPECT_TRUE(!manager.AllocateSlots(17, table));
  EXPECT_EQ(table.size(), 1);
  EXPECT_EQ(manager.num_free_blocks(), 2);
  EXPECT_TRUE(manager.AllocateSlots(12, table));
}

TEST(KVCacheManager, "shares a cached prefix in whole blocks") {
  KVCacheManager manager(10, kBlockSize, true);
  BlockTable first = Computed(manager, Tokens(10));
  BlockTable second;
  std::vector<int32_t> tokens = Tokens(9);
  tokens.push_back(77);
  const std::vector<BlockId> prefix = manager.FindPrefix("", tokens);
  EXPECT_EQ(prefix.size(), 2u);
  manager.AdoptPrefix(prefix, second);
  EXPECT_EQ(second.block_ids[0], first.block_ids[0]);
  EXPECT_EQ(second.block_ids[1], first.block_ids[1]);
  const BlockTable* const tables[] = {&first, &second};
  manager.CheckConsistency(tables);
}

TEST(KVCacheManager, "leaves at least one token of a prompt to compute") {
  KVCacheManager manager(10, kBlockSize, true);
  BlockTable table = Computed(manager, Tokens(8));
  EXPECT_EQ(HitBlocks(manager, Tokens(8)), 1u);
  EXPECT_EQ(HitBlocks(manager, Tokens(9)), 2u);
  EXPECT_EQ(HitBlocks(manager, Tokens(4)), 0u);
  EXPECT_EQ(HitBlocks(manager, Tokens(1)), 0u);
}

TEST(KVCacheManager, "does not find a block before all of its tokens are computed") {
  KVCacheManager manager(10, kBlockSize, true);
  const std::vector<int32_t> tokens = Tokens(9);
  BlockTable table;
  EXPECT_TRUE(manager.AllocateSlots(9, table));
  EXPECT_EQ(HitBlocks(manager, tokens), 0u);
  manager.CacheBlocks("", std::span(tokens).first(7), table);
  EXPECT_EQ(HitBlocks(manager, tokens), 1u);
  manager.CacheBlocks("", std::span(tokens).first(8), table);
  EXPECT_EQ(HitBlocks(manager, tokens), 2u);
}

TEST(KVCacheManager, "does not find the second block behind a different first one") {
  KVCacheManager manager(10, kBlockSize, true);
  BlockTable table = Computed(manager, Tokens(8));
  std::vector<int32_t> tokens = Tokens(9);
  tokens[0] = 99;
  EXPECT_EQ(HitBlocks(manager, tokens), 0u);
}

TEST(KVCacheManager, "finds nothing across salts, in any block of the chain") {
  KVCacheManager manager(20, kBlockSize, true);
  BlockTable red = Computed(manager, Tokens(12), "red");
  BlockTable blue = Computed(manager, Tokens(4), "blue");
  EXPECT_EQ(HitBlocks(manager, Tokens(13), "red"), 3u);
  EXPECT_EQ(HitBlocks(manager, Tokens(13), "blue"), 1u);
  EXPECT_EQ(HitBlocks(manager, Tokens(13)), 0u);
}

TEST(KVCacheManager, "finds nothing and shares nothing when prefix caching is off") {
  KVCacheManager manager(10, kBlockSize, false);
  BlockTable table = Computed(manager, Tokens(8));
  EXPECT_TRUE(table.nodes.empty());
  EXPECT_EQ(HitBlocks(manager, Tokens(9)), 0u);
}

TEST(KVCacheManager, "evicts the end of a prefix before its beginning") {
  KVCacheManager manager(4, kBlockSize, true);
  BlockTable table = Computed(manager, Tokens(12));
  manager.Free(table);
  for (const size_t left : {2u, 1u, 0u}) {
    BlockTable other;
    EXPECT_TRUE(manager.AllocateSlots(kBlockSize * (3 - static_cast<int>(left)), other));
    EXPECT_EQ(HitBlocks(manager, Tokens(13)), left);
    manager.Free(other);
  }
}

TEST(KVCacheManager, "counts cached blocks as free until someone adopts them") {
  KVCacheManager manager(6, kBlockSize, true);
  BlockTable table = Computed(manager, Tokens(8));
  const std::vector<BlockId> prefix = manager.FindPrefix("", Tokens(13));
  EXPECT_EQ(manager.NumFreeBlocksNeeded({}, prefix, 13), 2);
  manager.Free(table);
  EXPECT_EQ(manager.num_free_blocks(), 5);
  EXPECT_EQ(manager.NumFreeBlocksNeeded({}, prefix, 13), 4);
  BlockTable adopted;
  manager.AdoptPrefix(prefix, adopted);
  EXPECT_EQ(manager.num_free_blocks(), 3);
  EXPECT_EQ(manager.NumFreeBlocksNeeded(adopted, {}, 13), 2);
}

TEST(KVCacheManager, "keeps one findable copy when two sequences computed the same blocks") {
  KVCacheManager manager(12, kBlockSize, true);
  BlockTable first;
  BlockTable second;
  const std::vector<int32_t> tokens = Tokens(12);
  EXPECT_TRUE(manager.AllocateSlots(12, first) && manager.AllocateSlots(12, second));
  manager.CacheBlocks("", std::span(tokens).first(8), first);
  manager.CacheBlocks("", std::span(tokens).first(12), second);
  manager.CacheBlocks("", std::span(tokens).first(12), first);
  const std::vector<BlockId> prefix = manager.FindPrefix("", Tokens(13));
  EXPECT_EQ(prefix.size(), 3u);
  EXPECT_EQ(prefix[0], first.block_ids[0]);
  EXPECT_EQ(prefix[1], first.block_ids[1]);
  EXPECT_EQ(prefix[2], second.block_ids[2]);
  const BlockTable* const tables[] = {&first, &second};
  manager.CheckConsistency(tables);
  manager.Free(second);
  manager.Free(first);
  EXPECT_EQ(manager.num_free_blocks(), 11);
}

TEST(KVCacheManager, "forks share blocks until the last of them is freed, with prefix caching or without") {
  for (const bool caching : {false, true}) {
    KVCacheManager manager(10, kBlockSize, caching);
    BlockTable table = Computed(manager, Tokens(12));
    BlockTable fork;
    manager.Fork(table, 2, fork);
    EXPECT_EQ(manager.num_free_blocks(), 6);
    manager.Free(table);
    EXPECT_EQ(manager.num_free_blocks(), 7);
    manager.Free(fork);
    EXPECT_EQ(manager.num_free_blocks(), 9);
    manager.CheckConsistency({});
  }
}

TEST(KVCacheManager, "continues the chain of a fork where the shared blocks end") {
  KVCacheManager manager(10, kBlockSize, true);
  BlockTable table = Computed(manager, Tokens(12));
  BlockTable fork;
  manager.Fork(table, 2, fork);
  std::vector<int32_t> tokens = Tokens(8);
  for (int i = 0; i < 5; ++i) tokens.push_back(50 + i);
  EXPECT_TRUE(manager.AllocateSlots(13, fork));
  manager.CacheBlocks("", tokens, fork);
  EXPECT_EQ(HitBlocks(manager, tokens), 3u);
  EXPECT_EQ(HitBlocks(manager, Tokens(13)), 3u);
}

TEST(KVCacheManager, "forgets only what a sequence computed itself") {
  KVCacheManager manager(10, kBlockSize, true);
  BlockTable first = Computed(manager, Tokens(8));
  BlockTable second;
  manager.AdoptPrefix(manager.FindPrefix("", Tokens(12)), second);
  EXPECT_TRUE(manager.AllocateSlots(12, second));
  manager.CacheBlocks("", Tokens(12), second);
  EXPECT_EQ(HitBlocks(manager, Tokens(13)), 3u);
  manager.ForgetOwnBlocks(second);
  EXPECT_EQ(HitBlocks(manager, Tokens(13)), 2u);
  manager.ForgetOwnBlocks(first);
  EXPECT_EQ(HitBlocks(manager, Tokens(13)), 0u);
}

TEST(KVCacheManager, "forgets unused prefixes on reset") {
  KVCacheManager manager(10, kBlockSize, true);
  BlockTable used = Computed(manager, Tokens(8));
  BlockTable unused = Computed(manager, Tokens(8, 100));
  manager.Free(unused);
  manager.ResetPrefixCache();
  EXPECT_EQ(HitBlocks(manager, Tokens(9, 100)), 0u);
  EXPECT_EQ(HitBlocks(manager, Tokens(9)), 2u);
}

// What each block really holds: all tokens from the first of the sequence to the last of the block, salt in front.
using Content = std::vector<int32_t>;

// Sequences of two-letter alphabets, so that equal blocks behind different ones are common, come and go. Every hit must
// name blocks that hold exactly the tokens asked for, with everything before them.
void ExpectOnlyTrueHits(PrefixHash hash, int num_lookups, int* num_hits) {
  std::mt19937_64 random(5);
  KVCacheManager manager(24, kBlockSize, true, hash);
  std::vector<Content> contents(24);
  std::vector<BlockTable> tables(4);
  for (int i = 0; i < num_lookups; ++i) {
    BlockTable& table = tables[random() % tables.size()];
    manager.Free(table);
    Content tokens(random() % 20 + 1);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 8 == 0);
    const bool salted = random() % 2 == 0;
    const std::string_view salt = salted ? "salt" : "";

    Content expected(1, salted);
    const std::vector<BlockId> prefix = manager.FindPrefix(salt, tokens);
    for (size_t b = 0; b < prefix.size(); ++b) {
      expected.insert(expected.end(), tokens.begin() + static_cast<std::ptrdiff_t>(b) * kBlockSize,
                      tokens.begin() + static_cast<std::ptrdiff_t>(b + 1) * kBlockSize);
      EXPECT_TRUE(contents[static_cast<size_t>(prefix[b])] == expected);
    }
    *num_hits += static_cast<int>(prefix.size());

    manager.AdoptPrefix(prefix, table);
    if (!manager.AllocateSlots(static_cast<int>(tokens.size()), table)) continue;
    for (size_t b = prefix.size(); b < tokens.size() / kBlockSize; ++b) {
      expected.insert(expected.end(), tokens.begin() + static_cast<std::ptrdiff_t>(b) * kBlockSize,
                      tokens.begin() + static_cast<std::ptrdiff_t>(b + 1) * kBlockSize);
      contents[static_cast<size_t>(table.block_ids[b])] = expected;
    }
    manager.CacheBlocks(salt, tokens, table);
  }
  const BlockTable* const all[] = {&tables[0], &tables[1], &tables[2], &tables[3]};
  manager.CheckConsistency(all);
}

TEST(KVCacheManager, "gives no wrong hit in 100,000 lookups, when every hash collides and when none does") {
  for (const PrefixHash hash : {&ConstantHash, &HashPrefix}) {
    int num_hits = 0;
    ExpectOnlyTrueHits(hash, 100000, &num_hits);
    EXPECT_TRUE(num_hits > 10000);
  }
}

}  // namespace
}  // namespace heddle
