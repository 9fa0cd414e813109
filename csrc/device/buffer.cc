#include "device/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/error.h"

namespace heddle {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kCacheLine = 64;
// What nobody has asked for yet is never touched and costs nothing.
constexpr size_t kChunk = 8 * kHugePage;

[[noreturn]] void ThrowOutOfMemory(size_t bytes) {
  throw Error(ErrorCode::kInsufficientMemory, "the system refused " + std::to_string(bytes) + " bytes of memory");
}

// In whole cache lines, and never zero bytes.
size_t RoundUp(size_t bytes) { return (bytes + kCacheLine) / kCacheLine * kCacheLine; }

// Begins with a huge page: the kernel backs only aligned ones. The tail may be of small pages, which waste nothing.
std::shared_ptr<void> MapHugePages(size_t bytes) {
  if (bytes > SIZE_MAX - kHugePage) ThrowOutOfMemory(bytes);
  const size_t mapped = bytes + kHugePage;
  char* const memory = static_cast<char*>(
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (memory == MAP_FAILED) ThrowOutOfMemory(bytes);
  char* const aligned = memory + (kHugePage - reinterpret_cast<uintptr_t>(memory) % kHugePage) % kHugePage;
#ifdef MADV_HUGEPAGE
  madvise(aligned, bytes, MADV_HUGEPAGE);  // a hint: failure changes speed only
#endif
  return {aligned, [memory, mapped](void*) { munmap(memory, mapped); }};
}

}  // namespace

std::shared_ptr<void> AllocateHost(size_t bytes) {
  if (bytes >= kHugePage) return MapHugePages(bytes);
  const size_t rounded = RoundUp(bytes);
  void* memory = std::aligned_alloc(kCacheLine, rounded);
  if (memory == nullptr) ThrowOutOfMemory(bytes);
  std::memset(memory, 0, rounded);
  return {memory, [](void* p) { std::free(p); }};
}

std::shared_ptr<void> HostSlab::Allocate(size_t bytes) {
  if (bytes >= kHugePage) return AllocateHost(bytes);
  const size_t rounded = RoundUp(bytes);
  if (chunk_ == nullptr || kChunk - used_ < rounded) {
    chunk_ = AllocateHost(kChunk);
    used_ = 0;
  }
  void* const block = static_cast<char*>(chunk_.get()) + used_;
  used_ += rounded;
  return {chunk_, block};
}

}  // namespace heddle
