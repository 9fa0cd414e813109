#include "device/stream.h"

#include <stdexcept>
#include <thread>

#include "test.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

void Sleep(Stream& stream, int ms) {
  const OpTimer timer(stream);
  std::this_thread::sleep_for(milliseconds(ms));
}

TEST(OpTimer, "counts the time of an op, and not what lies between two") {
  Stream stream(1, true, CpuIsa::kScalar);
  const Clock::time_point start = Clock::now();
  Sleep(stream, 5);
  const Clock::time_point between = Clock::now();
  std::this_thread::sleep_for(milliseconds(50));
  const auto pause = Clock::now() - between;
  Sleep(stream, 5);
  EXPECT_TRUE(stream.op_time() >= milliseconds(10));
  EXPECT_TRUE(stream.op_time() <= Clock::now() - start - pause);
}

TEST(OpTimer, "counts ops within an op once") {
  Stream stream(1, true, CpuIsa::kScalar);
  const Clock::time_point start = Clock::now();
  {
    const OpTimer timer(stream);
    Sleep(stream, 5);
    Sleep(stream, 5);
    EXPECT_TRUE(stream.op_time() == milliseconds(0));
  }
  EXPECT_TRUE(stream.op_time() >= milliseconds(10));
  EXPECT_TRUE(stream.op_time() <= Clock::now() - start);
}

TEST(OpTimer, "counts an op that fails, and those after it") {
  Stream stream(1, true, CpuIsa::kScalar);
  try {
    const OpTimer timer(stream);
    throw std::runtime_error("a bug");
  } catch (const std::runtime_error&) {
  }
  const auto failed = stream.op_time();
  EXPECT_TRUE(failed > milliseconds(0));
  Sleep(stream, 1);
  EXPECT_TRUE(stream.op_time() >= failed + milliseconds(1));
}

}  // namespace
}  // namespace heddle
