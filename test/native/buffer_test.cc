#include "device/buffer.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"
#include "test.h"

namespace heddle {
namespace {

bool IsZero(const std::shared_ptr<void>& block, size_t bytes) {
  const char* begin = static_cast<const char*>(block.get());
  return std::all_of(begin, begin + bytes, [](char c) { return c == 0; });
}

TEST(AllocateHost, "gives zeroed, aligned memory of any size, large blocks beginning with a huge page") {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{4096}, size_t{2} << 20, (size_t{5} << 20) + 3}) {
    const std::shared_ptr<void> block = AllocateHost(bytes);
    const size_t alignment = bytes >= size_t{2} << 20 ? size_t{2} << 20 : 64;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.get()) % alignment, uintptr_t{0});
    EXPECT_TRUE(IsZero(block, bytes));
    std::memset(block.get(), 1, bytes);
  }
}

TEST(AllocateHost, "refuses what no memory could hold") {
  EXPECT_ERROR(ErrorCode::kInsufficientMemory, AllocateHost(SIZE_MAX));
  EXPECT_ERROR(ErrorCode::kInsufficientMemory, AllocateHost(size_t{1} << 60));
}

TEST(HostSlab, "gives memory back with the last of the blocks that share it") {
  HostSlab slab;
  std::shared_ptr<void> first = slab.Allocate(100);
  std::shared_ptr<void> second = slab.Allocate(100);
  const std::weak_ptr<void> memory = first;  // of both
  slab = HostSlab();
  first.reset();
  EXPECT_TRUE(!memory.expired());
  second.reset();
  EXPECT_TRUE(memory.expired());
}

TEST(HostSlab, "gives zeroed, aligned blocks that do not overlap and outlive it") {
  struct Block {
    std::shared_ptr<void> memory;
    size_t bytes;
  };
  std::vector<Block> blocks;
  {
    HostSlab slab;
    // More than a chunk, and some blocks with memory of their own.
    for (size_t i = 0; i < 60; ++i) {
      const size_t bytes = i % 10 == 9 ? size_t{3} << 20 : i * 20000 + 1;
      blocks.push_back({slab.Allocate(bytes), bytes});
      EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks.back().memory.get()) % 64, uintptr_t{0});
      EXPECT_TRUE(IsZero(blocks.back().memory, bytes));
      std::memset(blocks.back().memory.get(), static_cast<int>(i + 1), bytes);
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto* begin = static_cast<const unsigned char*>(blocks[i].memory.get());
    EXPECT_TRUE(std::all_of(begin, begin + blocks[i].bytes, [&](unsigned char c) { return c == i + 1; }));
  }
}

}  // namespace
}  // namespace heddle
