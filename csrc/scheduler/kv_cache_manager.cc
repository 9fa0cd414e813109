#include "scheduler/kv_cache_manager.h"

#include <string>

#include "base/error.h"

namespace heddle {

KVCacheManager::KVCacheManager(int num_blocks, int block_size, bool enable_prefix_caching, PrefixHash hash)
    : block_size_(block_size), prefix_caching_(enable_prefix_caching), pool_(num_blocks, block_size, hash) {}

std::vector<BlockId> KVCacheManager::FindPrefix(std::string_view salt, std::span<const int32_t> token_ids) const {
  std::vector<BlockId> prefix;
  if (!prefix_caching_ || token_ids.empty()) return prefix;
  const int max_blocks = (static_cast<int>(token_ids.size()) - 1) / block_size_;
  PrefixNodeId parent = kRootNode;
  while (static_cast<int>(prefix.size()) < max_blocks) {
    const BlockId block = pool_.Find(KeyOf(salt, token_ids, static_cast<int>(prefix.size()), parent));
    if (block == kNullBlock) break;
    prefix.push_back(block);
    parent = pool_.node(block);
  }
  return prefix;
}

int KVCacheManager::NumFreeBlocksNeeded(const BlockTable& table, std::span<const BlockId> prefix,
                                        int num_tokens) const {
  int needed = NumBlocks(num_tokens) - table.size();
  for (const BlockId block : prefix) needed -= pool_.ref_count(block) > 0;
  return needed;
}

void KVCacheManager::AdoptPrefix(std::span<const BlockId> prefix, BlockTable& table) {
  HEDDLE_CHECK(table.empty(), "only an empty table can start with a prefix");
  for (const BlockId block : prefix) {
    pool_.AddReference(block);
    table.block_ids.push_back(block);
    table.nodes.push_back(pool_.node(block));
  }
  table.num_adopted = table.size();
}

bool KVCacheManager::AllocateSlots(int num_tokens, BlockTable& table) {
  const int num_new = NumBlocks(num_tokens) - table.size();
  if (num_new > pool_.num_free()) return false;
  for (int i = 0; i < num_new; ++i) table.block_ids.push_back(pool_.Allocate());
  return true;
}

void KVCacheManager::Fork(const BlockTable& from, int num_blocks, BlockTable& table) {
  HEDDLE_CHECK(table.empty() && num_blocks <= from.size(), "cannot share " + std::to_string(num_blocks) + " blocks");
  table.block_ids.assign(from.block_ids.begin(), from.block_ids.begin() + num_blocks);
  for (const BlockId block : table.block_ids) pool_.AddReference(block);
  table.num_adopted = num_blocks;
  if (prefix_caching_) table.nodes.assign(from.nodes.begin(), from.nodes.begin() + num_blocks);
}

void KVCacheManager::CacheBlocks(std::string_view salt, std::span<const int32_t> computed_token_ids,
                                 BlockTable& table) {
  if (!prefix_caching_) return;
  const size_t num_full = computed_token_ids.size() / static_cast<size_t>(block_size_);
  while (table.nodes.size() < num_full) {
    const int index = static_cast<int>(table.nodes.size());
    const PrefixNodeId parent = index == 0 ? kRootNode : table.nodes.back();
    table.nodes.push_back(
        pool_.Register(KeyOf(salt, computed_token_ids, index, parent), table.block_ids[static_cast<size_t>(index)]));
  }
}

void KVCacheManager::ForgetOwnBlocks(const BlockTable& table) {
  for (int i = table.num_adopted; i < table.size(); ++i) pool_.Forget(table.block_ids[static_cast<size_t>(i)]);
}

void KVCacheManager::Free(BlockTable& table) {
  for (auto it = table.block_ids.rbegin(); it != table.block_ids.rend(); ++it) pool_.Release(*it);
  table.block_ids.clear();
  table.nodes.clear();
  table.num_adopted = 0;
}

void KVCacheManager::CheckConsistency(std::span<const BlockTable* const> tables) const {
  pool_.CheckConsistency();
  std::vector<int> references(static_cast<size_t>(pool_.num_total()) + 1, 0);
  for (const BlockTable* table : tables) {
    for (const BlockId block : table->block_ids) ++references[static_cast<size_t>(block)];
  }
  for (BlockId block = 0; block <= pool_.num_total(); ++block) {
    HEDDLE_CHECK(references[static_cast<size_t>(block)] == pool_.ref_count(block),
                 "block " + std::to_string(block) + " has " + std::to_string(pool_.ref_count(block)) + " references");
  }
}

PrefixKey KVCacheManager::KeyOf(std::string_view salt, std::span<const int32_t> token_ids, int index,
                                PrefixNodeId parent) const {
  const size_t size = static_cast<size_t>(block_size_);
  return {parent, salt, token_ids.subspan(static_cast<size_t>(index) * size, size)};
}

}  // namespace heddle
