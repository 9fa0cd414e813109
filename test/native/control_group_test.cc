#include "device/control_group.h"

#include "temp_folder.h"
#include "test.h"

namespace heddle {
namespace {

using test::TempFolder;

constexpr int64_t kUnlimited = ControlGroupLimits::kUnlimited;

// A file of the tree, with the folders above it.
void Put(const TempFolder& root, const std::string& path, const std::string& contents) {
  std::filesystem::create_directories(std::filesystem::path(root.path() + "/" + path).parent_path());
  root.Write(path, contents);
}

TEST(ControlGroup, "limits nothing where there is no control group") {
  const TempFolder root;
  const ControlGroupLimits limits = ReadControlGroupLimits(root.path());
  EXPECT_EQ(limits.available_memory, kUnlimited);
  EXPECT_TRUE(std::isinf(limits.processors));
}

TEST(ControlGroup, "of version 2 counts file cache that can be given up as free") {
  const TempFolder root;
  Put(root, "proc/self/cgroup", "0::/pod/app\n");
  Put(root, "sys/fs/cgroup/pod/app/memory.max", "1000\n");
  Put(root, "sys/fs/cgroup/pod/app/memory.current", "900\n");
  Put(root, "sys/fs/cgroup/pod/app/memory.stat", "anon 300\ninactive_file 500\nactive_file 100\n");
  EXPECT_EQ(ReadControlGroupLimits(root.path()).available_memory, 700);
}

TEST(ControlGroup, "of version 2 is held to the tightest limit of the groups around it") {
  const TempFolder root;
  Put(root, "proc/self/cgroup", "0::/pod/app\n");
  Put(root, "sys/fs/cgroup/pod/app/memory.max", "max\n");
  Put(root, "sys/fs/cgroup/pod/app/memory.current", "10\n");
  Put(root, "sys/fs/cgroup/pod/memory.max", "100\n");
  Put(root, "sys/fs/cgroup/pod/memory.current", "30\n");
  Put(root, "sys/fs/cgroup/pod/app/cpu.max", "250000 100000\n");
  Put(root, "sys/fs/cgroup/pod/cpu.max", "max 100000\n");
  const ControlGroupLimits limits = ReadControlGroupLimits(root.path());
  EXPECT_EQ(limits.available_memory, 70);
  EXPECT_EQ(limits.processors, 2.5);
}

TEST(ControlGroup, "whose path only the host sees is read at the root of its tree") {
  const TempFolder root;
  Put(root, "proc/self/cgroup", "12:pids:/x\n4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n");
  Put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  Put(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n");
  Put(root, "sys/fs/cgroup/memory/memory.stat", "cache 900\ntotal_inactive_file 600\ntotal_active_file 100\n");
  Put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  Put(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  const ControlGroupLimits limits = ReadControlGroupLimits(root.path());
  EXPECT_EQ(limits.available_memory, 1200);
  EXPECT_EQ(limits.processors, 0.5);
}

TEST(ControlGroup, "of version 1 without a quota limits no processors") {
  const TempFolder root;
  Put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Put(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_TRUE(std::isinf(ReadControlGroupLimits(root.path()).processors));
}

TEST(ControlGroup, "of a path that makes no sense is read at the root of its tree") {
  const TempFolder root;
  Put(root, "proc/self/cgroup", "0::pod\nnonsense\n::\n");
  Put(root, "sys/fs/cgroup/memory.max", "100\n");
  Put(root, "sys/fs/cgroup/memory.current", "40\n");
  EXPECT_EQ(ReadControlGroupLimits(root.path()).available_memory, 60);
}

TEST(ControlGroup, "that uses more than its limit leaves nothing") {
  const TempFolder root;
  Put(root, "sys/fs/cgroup/memory.max", "100\n");
  Put(root, "sys/fs/cgroup/memory.current", "150\n");
  EXPECT_EQ(ReadControlGroupLimits(root.path()).available_memory, 0);
}

}  // namespace
}  // namespace heddle
