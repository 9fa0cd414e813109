#include "scheduler/block_pool.h"

#include <algorithm>
#include <random>

#include "base/error.h"

namespace heddle {
namespace {

// The finaliser of SplitMix64: every input bit reaches every output bit.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t DrawSecret() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

size_t PowerOfTwoAtLeast(size_t count) {
  size_t power = 1;
  while (power < count) power *= 2;
  return power;
}

}  // namespace

uint64_t HashPrefix(const PrefixKey& key, uint64_t secret) {
  uint64_t hash = Mix(secret + key.parent);
  if (key.parent == kRootNode) {
    for (const char c : key.salt) hash = Mix(hash ^ static_cast<unsigned char>(c));
  }
  for (const int32_t token : key.token_ids) hash = Mix(hash ^ static_cast<uint32_t>(token));
  return hash;
}

BlockPool::BlockPool(int num_blocks, int block_size, PrefixHash hash)
    : block_size_(block_size), hash_(hash), secret_(DrawSecret()) {
  HEDDLE_CHECK(num_blocks >= 2 && block_size >= 1, std::to_string(num_blocks) + " blocks");
  blocks_.resize(static_cast<size_t>(num_blocks));
  tokens_.resize(blocks_.size() * static_cast<size_t>(block_size));
  buckets_.resize(PowerOfTwoAtLeast(blocks_.size()), kNullBlock);
  for (BlockId block = 1; block < num_blocks; ++block) LinkFree(block, At(kNullBlock).previous);
}

BlockId BlockPool::Allocate() {
  const BlockId block = At(kNullBlock).next;
  HEDDLE_CHECK(block != kNullBlock, "no free block");
  Forget(block);
  UnlinkFree(block);
  At(block).ref_count = 1;
  return block;
}

void BlockPool::AddReference(BlockId block) {
  Block& entry = At(block);
  HEDDLE_CHECK(entry.ref_count > 0 || entry.node != kRootNode, "block " + std::to_string(block) + " holds nothing");
  if (entry.ref_count++ == 0) UnlinkFree(block);
}

void BlockPool::Release(BlockId block) {
  Block& entry = At(block);
  HEDDLE_CHECK(entry.ref_count > 0, "block " + std::to_string(block) + " is free already");
  if (--entry.ref_count > 0) return;
  LinkFree(block, entry.node == kRootNode ? kNullBlock : At(kNullBlock).previous);
}

BlockId BlockPool::Find(const PrefixKey& key) const { return FindHashed(key, hash_(key, secret_)); }

PrefixNodeId BlockPool::Register(const PrefixKey& key, BlockId block) {
  const uint64_t hash = hash_(key, secret_);
  const BlockId existing = FindHashed(key, hash);
  if (existing != kNullBlock) return node(existing);

  Block& entry = At(block);
  HEDDLE_CHECK(entry.ref_count > 0 && entry.node == kRootNode, "block " + std::to_string(block));
  entry.node = ++last_node_;
  entry.parent = key.parent;
  entry.hash = hash;
  entry.next_in_bucket = std::exchange(buckets_[BucketOf(hash)], block);
  std::copy(key.token_ids.begin(), key.token_ids.end(), tokens_.begin() + std::ptrdiff_t{block} * block_size_);
  if (key.parent == kRootNode && !key.salt.empty()) salts_.emplace(block, key.salt);
  return entry.node;
}

void BlockPool::Forget(BlockId block) {
  Block& entry = At(block);
  if (entry.node == kRootNode) return;
  BlockId* link = &buckets_[BucketOf(entry.hash)];
  while (*link != block) link = &At(*link).next_in_bucket;
  *link = entry.next_in_bucket;
  entry.next_in_bucket = kNullBlock;
  entry.node = kRootNode;
  if (entry.parent == kRootNode) salts_.erase(block);
}

void BlockPool::ForgetFree() {
  for (BlockId block = At(kNullBlock).next; block != kNullBlock; block = At(block).next) Forget(block);
}

void BlockPool::CheckConsistency() const {
  int num_free = 0;
  for (BlockId block = At(kNullBlock).next; block != kNullBlock; block = At(block).next) {
    HEDDLE_CHECK(At(block).ref_count == 0, "block " + std::to_string(block) + " is free and in use");
    HEDDLE_CHECK(At(At(block).next).previous == block, "the free list is broken");
    ++num_free;
  }
  HEDDLE_CHECK(num_free == num_free_, std::to_string(num_free) + " free blocks listed");

  int num_in_use = 0;
  int num_cached = 0;
  int num_salts = 0;
  for (BlockId block = 1; block <= num_total(); ++block) {
    num_in_use += At(block).ref_count > 0;
    if (At(block).node == kRootNode) continue;
    ++num_cached;
    num_salts += !SaltOf(block).empty();
    const PrefixKey key{At(block).parent, SaltOf(block), TokensOf(block)};
    HEDDLE_CHECK(Find(key) == block, "block " + std::to_string(block) + " is cached and cannot be found");
  }
  HEDDLE_CHECK(num_in_use + num_free == num_total(), "a block is neither free nor in use");
  HEDDLE_CHECK(At(kNullBlock).ref_count == 0 && At(kNullBlock).node == kRootNode, "the null block is taken");
  HEDDLE_CHECK(static_cast<size_t>(num_salts) == salts_.size(), "a salt outlived its block");
  for (BlockId block : buckets_) {
    for (; block != kNullBlock; block = At(block).next_in_bucket) --num_cached;
  }
  HEDDLE_CHECK(num_cached == 0, "the index lists blocks that are not cached");
}

std::span<const int32_t> BlockPool::TokensOf(BlockId block) const {
  return {tokens_.data() + std::ptrdiff_t{block} * block_size_, static_cast<size_t>(block_size_)};
}

std::string_view BlockPool::SaltOf(BlockId block) const {
  const auto it = salts_.find(block);
  return it == salts_.end() ? std::string_view() : std::string_view(it->second);
}

bool BlockPool::Holds(BlockId block, const PrefixKey& key) const {
  if (At(block).parent != key.parent) return false;
  if (key.parent == kRootNode && SaltOf(block) != key.salt) return false;
  const std::span<const int32_t> tokens = TokensOf(block);
  return std::equal(tokens.begin(), tokens.end(), key.token_ids.begin(), key.token_ids.end());
}

BlockId BlockPool::FindHashed(const PrefixKey& key, uint64_t hash) const {
  BlockId block = buckets_[BucketOf(hash)];
  while (block != kNullBlock && !(At(block).hash == hash && Holds(block, key))) block = At(block).next_in_bucket;
  return block;
}

void BlockPool::LinkFree(BlockId block, BlockId after) {
  const BlockId before = At(after).next;
  At(block).previous = after;
  At(block).next = before;
  At(after).next = block;
  At(before).previous = block;
  ++num_free_;
}

void BlockPool::UnlinkFree(BlockId block) {
  const Block& entry = At(block);
  At(entry.previous).next = entry.next;
  At(entry.next).previous = entry.previous;
  --num_free_;
}

}  // namespace heddle
