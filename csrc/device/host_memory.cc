#include "device/host_memory.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

#include "device/control_group.h"

namespace heddle {
namespace {

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

int64_t AvailableHostMemory() { return std::min(SystemAvailable(), ReadControlGroupLimits().available_memory); }

int NumAvailableProcessors() {
  int processors = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) processors = CPU_COUNT(&set);
#endif
  const double quota = std::ceil(ReadControlGroupLimits().processors);
  return std::max(1, static_cast<int>(std::min<double>(processors, quota)));
}

}  // namespace heddle
