#include "device/control_group.h"

#include <algorithm>
#include <fstream>
#include <string_view>
#include <vector>

namespace heddle {
namespace {

constexpr int64_t kUnlimited = ControlGroupLimits::kUnlimited;

// The number that a file begins with; "max" and absence mean no limit.
int64_t ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : kUnlimited;
}

// The value of a key in a file of "key value" lines; 0 when it is not there.
int64_t ReadStat(const std::string& path, std::string_view wanted) {
  std::ifstream file(path);
  std::string key;
  int64_t value = 0;
  while (file >> key >> value) {
    if (key == wanted) return value;
  }
  return 0;
}

// Where this version's files have what we look for.
struct Layout {
  const char* controllers;  // as in /proc/self/cgroup; "" for version 2
  const char* tree;
  const char* memory_limit;
  const char* memory_usage;
  const char* inactive_file;  // in memory.stat
  const char* active_file;
};
constexpr Layout kVersion2{"", "", "memory.max", "memory.current", "inactive_file", "active_file"};
constexpr Layout kMemory1{
    "memory", "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"};
constexpr Layout kCpu1{"cpu", "/cpu", nullptr, nullptr, nullptr, nullptr};

bool Lists(std::string_view controllers, std::string_view wanted) {
  while (true) {
    const size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == wanted) return true;
    if (comma == std::string_view::npos) return false;
    controllers.remove_prefix(comma + 1);
  }
}

// The folders of the process's group and of those around it. Inside a container the path may name what only the host
// sees; then just the tree's root is there.
std::vector<std::string> Groups(const std::string& root, const Layout& layout) {
  std::ifstream file(root + "/proc/self/cgroup");
  std::string path;
  for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    if (Lists(std::string_view(line).substr(first + 1, second - first - 1), layout.controllers)) {
      path = line.substr(second + 1);
    }
  }
  const std::string tree = root + "/sys/fs/cgroup" + layout.tree;
  std::vector<std::string> groups;
  if (path.empty() || path[0] != '/') path.clear();
  for (; path.size() > 1; path.resize(path.rfind('/'))) groups.push_back(tree + path);
  groups.push_back(tree);
  return groups;
}

void ReadMemory(const std::string& group, const Layout& layout, ControlGroupLimits& limits) {
  const int64_t limit = ReadNumber(group + "/" + layout.memory_limit);
  const int64_t usage = ReadNumber(group + "/" + layout.memory_usage);
  if (limit == kUnlimited || usage == kUnlimited) return;
  // Pages of files can be given up; those of mapped weights that an engine is about to map again are among them.
  const std::string stat = group + "/memory.stat";
  const int64_t used = usage - ReadStat(stat, layout.inactive_file) - ReadStat(stat, layout.active_file);
  limits.available_memory = std::min(limits.available_memory, std::max<int64_t>(limit - used, 0));
}

void LimitProcessors(int64_t quota, int64_t period, ControlGroupLimits& limits) {
  if (quota <= 0 || quota == kUnlimited || period <= 0 || period == kUnlimited) return;
  limits.processors = std::min(limits.processors, static_cast<double>(quota) / static_cast<double>(period));
}

}  // namespace

ControlGroupLimits ReadControlGroupLimits(const std::string& root) {
  ControlGroupLimits limits;
  for (const std::string& group : Groups(root, kVersion2)) {
    ReadMemory(group, kVersion2, limits);
    std::ifstream cpu(group + "/cpu.max");
    int64_t quota = 0;
    int64_t period = 0;
    if (cpu >> quota >> period) LimitProcessors(quota, period, limits);
  }
  for (const std::string& group : Groups(root, kMemory1)) ReadMemory(group, kMemory1, limits);
  for (const std::string& group : Groups(root, kCpu1)) {
    LimitProcessors(ReadNumber(group + "/cpu.cfs_quota_us"), ReadNumber(group + "/cpu.cfs_period_us"), limits);
  }
  return limits;
}

}  // namespace heddle
