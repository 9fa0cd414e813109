#include "scheduler/block_pool.h"

#include <set>

#include "test.h"

namespace heddle {
namespace {

uint64_t ConstantHash(const PrefixKey&, uint64_t) { return 7; }

const std::vector<int32_t> kTokensA = {1, 2};
const std::vector<int32_t> kTokensB = {3, 4};

PrefixKey Key(const std::vector<int32_t>& tokens, PrefixNodeId parent = kRootNode, std::string_view salt = "") {
  return {parent, salt, tokens};
}

TEST(BlockPool, "hands out every block once and never the null block") {
  BlockPool pool(5, 2);
  EXPECT_EQ(pool.num_total(), 4);
  std::set<BlockId> seen;
  while (pool.num_free() > 0) seen.insert(pool.Allocate());
  EXPECT_EQ(seen.size(), 4u);
  EXPECT_EQ(seen.count(kNullBlock), 0u);
  EXPECT_ERROR(ErrorCode::kInternal, pool.Allocate());
  pool.CheckConsistency();
}

TEST(BlockPool, "frees a block with its last reference and not before") {
  BlockPool pool(3, 2);
  const BlockId block = pool.Allocate();
  pool.AddReference(block);
  pool.Release(block);
  EXPECT_EQ(pool.num_free(), 1);
  pool.Release(block);
  EXPECT_EQ(pool.num_free(), 2);
  pool.CheckConsistency();
}

TEST(BlockPool, "refuses to release a free block") {
  BlockPool pool(3, 2);
  const BlockId block = pool.Allocate();
  pool.Release(block);
  EXPECT_ERROR(ErrorCode::kInternal, pool.Release(block));
}

TEST(BlockPool, "refuses a reference to a block that is free and holds no prefix") {
  BlockPool pool(3, 2);
  EXPECT_ERROR(ErrorCode::kInternal, pool.AddReference(1));
}

TEST(BlockPool, "finds a registered prefix, and nothing else") {
  BlockPool pool(4, 2);
  const BlockId block = pool.Allocate();
  const PrefixNodeId node = pool.Register(Key(kTokensA), block);
  EXPECT_EQ(pool.Find(Key(kTokensA)), block);
  EXPECT_EQ(pool.Find(Key(kTokensB)), kNullBlock);
  EXPECT_EQ(pool.Find(Key(kTokensA, node)), kNullBlock);
  EXPECT_EQ(pool.Find(Key(kTokensA, kRootNode, "salt")), kNullBlock);
}

TEST(BlockPool, "revives a free block on a prefix hit and takes it off the free list") {
  BlockPool pool(3, 2);
  const BlockId block = pool.Allocate();
  pool.Register(Key(kTokensA), block);
  pool.Release(block);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.Find(Key(kTokensA)), block);
  pool.AddReference(block);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.Allocate() != block);
  pool.CheckConsistency();
}

TEST(BlockPool, "forgets a prefix when its block is handed out again") {
  BlockPool pool(2, 2);
  const BlockId block = pool.Allocate();
  const PrefixNodeId node = pool.Register(Key(kTokensA), block);
  pool.Release(block);
  EXPECT_EQ(pool.Allocate(), block);
  EXPECT_EQ(pool.Find(Key(kTokensA)), kNullBlock);
  EXPECT_TRUE(pool.Register(Key(kTokensA), block) != node);
  pool.CheckConsistency();
}

TEST(BlockPool, "evicts the least recently used prefix, and blocks without a prefix before any") {
  BlockPool pool(4, 2);
  const BlockId a = pool.Allocate();
  const BlockId b = pool.Allocate();
  const BlockId plain = pool.Allocate();
  pool.Register(Key(kTokensA), a);
  pool.Register(Key(kTokensB), b);
  pool.Release(a);
  pool.Release(b);
  pool.Release(plain);
  pool.AddReference(a);
  pool.Release(a);
  EXPECT_EQ(pool.Allocate(), plain);
  EXPECT_EQ(pool.Allocate(), b);
  EXPECT_EQ(pool.Allocate(), a);
}

TEST(BlockPool, "keeps the first of two blocks that hold the same prefix") {
  BlockPool pool(3, 2);
  const BlockId first = pool.Allocate();
  const BlockId second = pool.Allocate();
  const PrefixNodeId node = pool.Register(Key(kTokensA), first);
  EXPECT_EQ(pool.Register(Key(kTokensA), second), node);
  EXPECT_EQ(pool.Find(Key(kTokensA)), first);
  EXPECT_EQ(pool.node(second), kRootNode);
  pool.CheckConsistency();
}

TEST(BlockPool, "separates salts at the root") {
  BlockPool pool(4, 2);
  const BlockId plain = pool.Allocate();
  const BlockId red = pool.Allocate();
  const BlockId blue = pool.Allocate();
  pool.Register(Key(kTokensA), plain);
  pool.Register(Key(kTokensA, kRootNode, "red"), red);
  pool.Register(Key(kTokensA, kRootNode, "blue"), blue);
  EXPECT_EQ(pool.Find(Key(kTokensA)), plain);
  EXPECT_EQ(pool.Find(Key(kTokensA, kRootNode, "red")), red);
  EXPECT_EQ(pool.Find(Key(kTokensA, kRootNode, "blue")), blue);
  pool.CheckConsistency();
}

TEST(BlockPool, "drops a salt with its block") {
  BlockPool pool(2, 2);
  for (int i = 0; i < 100; ++i) {
    const BlockId block = pool.Allocate();
    pool.Register(Key(kTokensA, kRootNode, "salt " + std::to_string(i)), block);
    pool.CheckConsistency();
    pool.Release(block);
  }
}

TEST(BlockPool, "tells prefixes apart when every hash collides") {
  BlockPool pool(8, 2, ConstantHash);
  const BlockId a = pool.Allocate();
  const BlockId ab = pool.Allocate();
  const BlockId b = pool.Allocate();
  const BlockId salted = pool.Allocate();
  const PrefixNodeId node_a = pool.Register(Key(kTokensA), a);
  const PrefixNodeId node_b = pool.Register(Key(kTokensB), b);
  pool.Register(Key(kTokensB, node_a), ab);
  pool.Register(Key(kTokensA, kRootNode, "salt"), salted);
  EXPECT_EQ(pool.Find(Key(kTokensA)), a);
  EXPECT_EQ(pool.Find(Key(kTokensB)), b);
  EXPECT_EQ(pool.Find(Key(kTokensB, node_a)), ab);
  EXPECT_EQ(pool.Find(Key(kTokensA, kRootNode, "salt")), salted);
  EXPECT_EQ(pool.Find(Key(kTokensA, node_b)), kNullBlock);
  EXPECT_EQ(pool.Find(Key(kTokensB, kRootNode, "salt")), kNullBlock);
  pool.Forget(b);
  EXPECT_EQ(pool.Find(Key(kTokensB)), kNullBlock);
  EXPECT_EQ(pool.Find(Key(kTokensB, node_a)), ab);
  pool.CheckConsistency();
}

TEST(BlockPool, "forgets the prefixes of free blocks and keeps those in use") {
  BlockPool pool(3, 2);
  const BlockId used = pool.Allocate();
  const BlockId unused = pool.Allocate();
  pool.Register(Key(kTokensA), used);
  pool.Register(Key(kTokensB), unused);
  pool.Release(unused);
  pool.ForgetFree();
  EXPECT_EQ(pool.Find(Key(kTokensA)), used);
  EXPECT_EQ(pool.Find(Key(kTokensB)), kNullBlock);
  EXPECT_EQ(pool.num_free(), 1);
  pool.CheckConsistency();
}

TEST(BlockPool, "hashes the secret, the parent, the salt, and tokens in their order") {
  std::set<uint64_t> hashes;
  const std::vector<int32_t> reversed = {2, 1};
  hashes.insert(HashPrefix(Key(kTokensA), 1));
  hashes.insert(HashPrefix(Key(kTokensA), 2));
  hashes.insert(HashPrefix(Key(kTokensB), 1));
  hashes.insert(HashPrefix(Key(reversed), 1));
  hashes.insert(HashPrefix(Key(kTokensA, 9), 1));
  hashes.insert(HashPrefix(Key(kTokensA, kRootNode, "salt"), 1));
  hashes.insert(HashPrefix(Key(kTokensA, kRootNode, "tlas"), 1));
  EXPECT_EQ(hashes.size(), 7u);
}

}  // namespace
}  // namespace heddle
