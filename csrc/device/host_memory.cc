#include "device/host_memory.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

namespace heddle {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number in a one-line file of the control-group tree; "max" and absence mean no limit.
int64_t ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : kUnlimited;
}

int64_t SystemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kibibytes = 0;
  std::string unit;
  while (file >> key >> kibibytes) {
    if (key == "MemAvailable:") return kibibytes * 1024;
    std::getline(file, unit);
  }
  // Not Linux: half of what is installed is a sound guess.
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 2;
}

}  // namespace

int64_t AvailableHostMemory() {
  int64_t available = SystemAvailable();
  const int64_t limits[][2] = {
      {ReadNumber("/sys/fs/cgroup/memory.max"), ReadNumber("/sys/fs/cgroup/memory.current")},
      {ReadNumber("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
       ReadNumber("/sys/fs/cgroup/memory/memory.usage_in_bytes")},
  };
  for (const auto& [limit, usage] : limits) {
    if (limit != kUnlimited && usage != kUnlimited)
      available = std::min(available, std::max<int64_t>(limit - usage, 0));
  }
  return available;
}

int NumAvailableProcessors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace heddle
