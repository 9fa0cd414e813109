#include "fake_cuda.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "device/cuda_library.h"
#include "test.h"

namespace heddle::test {
namespace {

// In the library that the core opens, which is not another copy. Null where another is named.
FakeCuda* Find() {
  const char* const named = std::getenv("HEDDLE_CUDA_LIBRARY");
  if (named != nullptr && *named != '\0') return nullptr;
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libheddle_cuda.so";
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const symbol = library == nullptr ? nullptr : dlsym(library, "HeddleFakeCuda");
  if (symbol == nullptr) throw std::runtime_error(dlerror());
  return reinterpret_cast<FakeCuda* (*)()>(symbol)();
}

FakeCuda* FakeOrNull() {
  static FakeCuda* const fake = Find();
  return fake;
}

}  // namespace

FakeCuda& TheFakeCuda() {
  FakeCuda* const fake = FakeOrNull();
  if (fake == nullptr) SKIP("a GPU is under test, not the fake");
  fake->serves_models = false;
  fake->is_late = false;
  for (FakeDevice& device : fake->devices) device.state = FakeState::kRunning;
  return *fake;
}

void RequireDevice() {
  if (FakeOrNull() != nullptr) return static_cast<void>(TheFakeCuda());
  std::string reason;
  if (NumCudaDevices(&reason) == 0) SKIP(reason);
}

void RequireGpu() {
  if (FakeOrNull() != nullptr) SKIP("HEDDLE_CUDA_LIBRARY names no library to run on a GPU");
  RequireDevice();
}

}  // namespace heddle::test
