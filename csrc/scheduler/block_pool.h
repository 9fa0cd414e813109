// Hands out KV-cache blocks and remembers which full blocks hold which prefix.
//
//   (1) A block is either in use (ref_count > 0) or in the free list, never both.
//   (2) A free block keeps its prefix until it is handed out again, so a hit can revive it. The free list is therefore
//       in eviction order: blocks without a prefix first, then the least recently used.
//   (3) A cached block is a node named by an id that is never reused. Its key is its parent's id and its own tokens, so
//       equal keys mean equal tokens all the way from the start, salt included. The hash of a key only finds
//       candidates; a hit also compares the key itself, so no collision can ever give a stranger's keys and values.
//   (4) Block 0 is the null block: never handed out, never cached.
//
// Everything is bounded by the number of blocks. Engine thread only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace heddle {

using BlockId = int32_t;
inline constexpr BlockId kNullBlock = 0;

// Names a cached block, for as long as its content is cached.
using PrefixNodeId = uint64_t;
inline constexpr PrefixNodeId kRootNode = 0;

struct PrefixKey {
  PrefixNodeId parent = kRootNode;     // the block before; kRootNode: there is none
  std::string_view salt;               // counts only below the root, and through it for the whole chain
  std::span<const int32_t> token_ids;  // [block_size]
};

using PrefixHash = uint64_t (*)(const PrefixKey& key, uint64_t secret);

// Mixes every token, the parent and the salt with the secret.
uint64_t HashPrefix(const PrefixKey& key, uint64_t secret);

class BlockPool {
 public:
  // REQUIRES: num_blocks >= 2, block_size >= 1.
  BlockPool(int num_blocks, int block_size, PrefixHash hash = HashPrefix);

  int num_free() const { return num_free_; }
  int num_total() const { return static_cast<int>(blocks_.size()) - 1; }  // without the null block
  int ref_count(BlockId block) const { return At(block).ref_count; }

  // The next block in eviction order, with one reference; forgets the prefix it held. REQUIRES: num_free() > 0.
  BlockId Allocate();

  // One more reference; takes a free block off the free list. REQUIRES: in use or cached.
  void AddReference(BlockId block);

  // One reference less; the last one puts the block into the free list. REQUIRES: in use.
  void Release(BlockId block);

  // The block that holds this prefix, or kNullBlock.
  BlockId Find(const PrefixKey& key) const;

  // Makes the block findable under the key and returns the node. When another block holds the key already that one
  // stays, its node is returned, and this block remains uncached. REQUIRES: in use, not cached.
  PrefixNodeId Register(const PrefixKey& key, BlockId block);

  // The node of a cached block, or kRootNode.
  PrefixNodeId node(BlockId block) const { return At(block).node; }

  // Makes the block unfindable. References stay.
  void Forget(BlockId block);

  // Forgets the prefixes of all free blocks.
  void ForgetFree();

  // Fails with kInternal unless the free list, the reference counts and the index agree. Takes time in proportion to
  // the pool: for tests.
  void CheckConsistency() const;

 private:
  struct Block {
    int ref_count = 0;
    BlockId previous = kNullBlock;  // in the free list, which is a ring through the null block
    BlockId next = kNullBlock;
    PrefixNodeId node = kRootNode;  // kRootNode: not cached
    PrefixNodeId parent = kRootNode;
    uint64_t hash = 0;
    BlockId next_in_bucket = kNullBlock;
  };

  Block& At(BlockId block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& At(BlockId block) const { return blocks_[static_cast<size_t>(block)]; }
  std::span<const int32_t> TokensOf(BlockId block) const;
  std::string_view SaltOf(BlockId block) const;
  size_t BucketOf(uint64_t hash) const { return static_cast<size_t>(hash) & (buckets_.size() - 1); }
  bool Holds(BlockId block, const PrefixKey& key) const;
  BlockId FindHashed(const PrefixKey& key, uint64_t hash) const;
  void LinkFree(BlockId block, BlockId after);
  void UnlinkFree(BlockId block);

  const int block_size_;
  const PrefixHash hash_;
  const uint64_t secret_;  // drawn for each pool, so that nobody can choose colliding prompts; no result depends on it
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;                     // [num_blocks, block_size], of cached blocks
  std::unordered_map<BlockId, std::string> salts_;  // of cached blocks below the root, where not empty
  std::vector<BlockId> buckets_;                    // heads of chains; a power of two of them
  PrefixNodeId last_node_ = kRootNode;
  int num_free_ = 0;
};

}  // namespace heddle
