// What the control groups of this process (containers, systemd units, Kubernetes pods) let it use. Linux; elsewhere no
// limits are found.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace heddle {

struct ControlGroupLimits {
  static constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

  // Under the tightest limit: what is left of it, counting file cache that the kernel would give up as free.
  int64_t available_memory = kUnlimited;
  // The tightest quota of processor time, in processors.
  double processors = std::numeric_limits<double>::infinity();
};

// Reads <root>/proc/self/cgroup and the trees under <root>/sys/fs/cgroup, of version 2 and of version 1. A limit may be
// set on the process's group or on any group around it. What cannot be read limits nothing. `root` is for tests.
ControlGroupLimits ReadControlGroupLimits(const std::string& root = "");

}  // namespace heddle
