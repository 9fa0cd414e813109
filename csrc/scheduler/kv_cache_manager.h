// Decides which KV-cache blocks a sequence holds: prefix lookup, growth, sharing between forks, release.
//
//   (1) Block i of a sequence's table holds the keys and values of its tokens [i * block_size, (i + 1) * block_size).
//   (2) A block becomes findable as a prefix only when it is full and all its tokens were computed; it is never written
//       again after that. Shared blocks are always full ones.
//   (3) Of two sequences that compute the same block at once, the first to finish it is the one that is found.
//
// Engine thread only.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/rounding.h"
#include "scheduler/block_pool.h"

namespace heddle {

// The blocks of one sequence. Filled and emptied by KVCacheManager only.
struct BlockTable {
  std::vector<BlockId> block_ids;
  std::vector<PrefixNodeId> nodes;  // of the full and computed blocks, first to last; empty without prefix caching
  int num_adopted = 0;              // blocks at the front that another sequence computed

  int size() const { return static_cast<int>(block_ids.size()); }
  bool empty() const { return block_ids.empty(); }
};

class KVCacheManager {
 public:
  // REQUIRES: num_blocks >= 2 (one is the null block), block_size >= 1.
  KVCacheManager(int num_blocks, int block_size, bool enable_prefix_caching, PrefixHash hash = HashPrefix);

  int num_free_blocks() const { return pool_.num_free(); }
  int num_total_blocks() const { return pool_.num_total(); }
  bool prefix_caching() const { return prefix_caching_; }

  // The blocks of the longest cached prefix, for AdoptPrefix. Whole blocks, and at least one token is left over, since
  // the last token must be computed to predict the next. Empty without prefix caching. Takes no reference.
  std::vector<BlockId> FindPrefix(std::string_view salt, std::span<const int32_t> token_ids) const;

  // How many free blocks it takes for the table, starting with `prefix` where it is empty, to hold num_tokens.
  int NumFreeBlocksNeeded(const BlockTable& table, std::span<const BlockId> prefix, int num_tokens) const;

  // Starts an empty table with blocks that FindPrefix gave, before anything else was allocated.
  void AdoptPrefix(std::span<const BlockId> prefix, BlockTable& table);

  // Grows the table to hold num_tokens. False, changing nothing, when there are too few free blocks.
  bool AllocateSlots(int num_tokens, BlockTable& table);

  // Starts an empty table with the first num_blocks blocks of another, shared.
  void Fork(const BlockTable& from, int num_blocks, BlockTable& table);

  // Makes the full blocks of `computed_token_ids`, the sequence's tokens from the first on, findable.
  void CacheBlocks(std::string_view salt, std::span<const int32_t> computed_token_ids, BlockTable& table);

  // Makes the blocks that the table's sequence computed itself unfindable, for content that must not spread.
  void ForgetOwnBlocks(const BlockTable& table);

  // Gives all references back, the last block first, so that a prefix is evicted after its continuations.
  void Free(BlockTable& table);

  // Forgets every prefix that no table holds.
  void ResetPrefixCache() { pool_.ForgetFree(); }

  // Fails with kInternal unless `tables`, which must be all there are, account for every reference. For tests.
  void CheckConsistency(std::span<const BlockTable* const> tables) const;

 private:
  int NumBlocks(int num_tokens) const { return static_cast<int>(CeilDiv(num_tokens, block_size_)); }
  PrefixKey KeyOf(std::string_view salt, std::span<const int32_t> token_ids, int index, PrefixNodeId parent) const;

  const int block_size_;
  const bool prefix_caching_;
  BlockPool pool_;
};

}  // namespace heddle
