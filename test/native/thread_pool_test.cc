#include "device/thread_pool.h"

#include <atomic>
#include <chrono>
#include <ctime>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/backoff.h"
#include "device/stream.h"
#include "test.h"

namespace heddle {
namespace {

double ProcessSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST(ThreadPool, "calls the task once for each thread, thread 0 on the caller") {
  for (int num_threads : {1, 2, 3, 8}) {
    for (bool oversubscribed : {false, true}) {
      ThreadPool pool(num_threads, oversubscribed);
      EXPECT_EQ(pool.num_threads(), num_threads);
      std::vector<int> calls(static_cast<size_t>(num_threads));
      const auto caller = std::this_thread::get_id();
      bool on_caller = false;
      for (int i = 0; i < 200; ++i) {
        pool.Run([&](int thread) {
          ++calls[static_cast<size_t>(thread)];
          if (thread == 0) on_caller = std::this_thread::get_id() == caller;
        });
      }
      for (int count : calls) EXPECT_EQ(count, 200);
      EXPECT_TRUE(on_caller);
    }
  }
}

TEST(ThreadPool, "returns only after every thread has written its part, and shows the caller what it wrote") {
  ThreadPool pool(3, true);
  std::vector<int64_t> values(1000);
  for (int64_t round = 1; round <= 300; ++round) {
    pool.Run([&](int thread) {
      const WorkRange part = SplitWork(1000, thread, 3);
      for (int64_t i = part.begin; i < part.end; ++i) values[static_cast<size_t>(i)] = round * i;
    });
    int64_t sum = 0;
    for (int64_t value : values) sum += value;
    EXPECT_EQ(sum, round * 999 * 500);
  }
}

TEST(ThreadPool, "hands out every item once, in pieces, whatever the pace of its threads") {
  for (int num_threads : {1, 2, 5}) {
    ThreadPool pool(num_threads, true);
    for (int64_t count : {0, 1, 4, 97, 1000}) {
      for (int64_t piece : {1, 8, 2000}) {
        std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
        std::atomic<int> too_long{0};
        pool.RunPieces(count, piece, [&](int thread, int64_t begin, int64_t end) {
          if (begin >= end || end - begin > piece) ++too_long;
          // The slowest thread leaves its part to the others.
          if (thread == 0) std::this_thread::yield();
          for (int64_t i = begin; i < end; ++i) ++calls[static_cast<size_t>(i)];
        });
        for (const std::atomic<int>& call : calls) EXPECT_EQ(call.load(), 1);
        EXPECT_EQ(too_long.load(), 0);
      }
    }
  }
}

TEST(ThreadPool, "lets a thread that is done take over what another has left") {
  ThreadPool pool(2, false);
  std::atomic<int64_t> by_helper{0};
  std::atomic<bool> helper_done{false};
  pool.RunPieces(100, 1, [&](int thread, int64_t, int64_t) {
    if (thread == 0) {
      while (!helper_done.load()) std::this_thread::yield();  // in its first piece, until all others are taken
    } else if (++by_helper == 99) {
      helper_done.store(true);
    }
  });
  EXPECT_TRUE(by_helper.load() >= 99);
}

TEST(ThreadPool, "waits in shared work for helpers that have begun, and lets no late one in") {
  for (int num_threads : {1, 2, 4}) {
    ThreadPool pool(num_threads, true);
    std::atomic<int> inside{0};
    for (int i = 0; i < 3000; ++i) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(num_threads));
      // What a helper touches after the call has returned is gone: sanitizers would tell.
      pool.RunShared([&](int thread) {
        ++inside;
        ++calls[static_cast<size_t>(thread)];
        if (i % 3 == 0) std::this_thread::yield();
        --inside;
      });
      EXPECT_EQ(inside.load(), 0);
      EXPECT_EQ(calls[0].load(), 1);
      for (const std::atomic<int>& count : calls) EXPECT_TRUE(count.load() <= 1);
    }
    // Whoever came late has lost nothing.
    std::atomic<int> all{0};
    pool.Run([&](int) { ++all; });
    EXPECT_EQ(all.load(), num_threads);
  }
}

TEST(ThreadPool, "ends shared work without helpers that are still parked") {
  ThreadPool pool(4, false);
  std::atomic<int> by_helpers{0};
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    // Over before anybody has woken up.
    pool.RunShared([&](int thread) { by_helpers += thread > 0 ? 1 : 0; });
  }
  EXPECT_TRUE(by_helpers.load() < 20 * 3);
}

TEST(ThreadPool, "throws what a thread throws in shared work, and stays usable") {
  ThreadPool pool(2, true);
  for (int thrower : {0, 1}) {
    std::atomic<bool> entered{false};
    bool threw = false;
    try {
      pool.RunShared([&](int thread) {
        if (thread == 1) entered = true;
        while (!entered) std::this_thread::yield();
        if (thread == thrower) throw std::runtime_error("from shared work");
      });
    } catch (const std::runtime_error&) {
      threw = true;
    }
    EXPECT_TRUE(threw);
    std::atomic<int> items{0};
    pool.RunPieces(100, 7, [&](int, int64_t begin, int64_t end) { items += static_cast<int>(end - begin); });
    EXPECT_EQ(items.load(), 100);
  }
}

TEST(ThreadPool, "takes up work again after its helpers have parked") {
  ThreadPool pool(3, false);
  std::atomic<int> calls{0};
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    pool.Run([&](int) { ++calls; });
  }
  EXPECT_EQ(calls.load(), 15);
}

TEST(ThreadPool, "uses no processor while it is idle") {
  ThreadPool pool(4, false);
  pool.Run([](int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const double before = ProcessSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_TRUE(ProcessSeconds() - before < 0.02);
}

TEST(ThreadPool, "throws a task's exception on the caller after all threads have returned, and stays usable") {
  ThreadPool pool(4, true);
  for (int thrower = 0; thrower < 4; ++thrower) {
    std::atomic<int> calls{0};
    bool threw = false;
    try {
      pool.Run([&](int thread) {
        if (thread == thrower) throw std::runtime_error("from a task");
        ++calls;
      });
    } catch (const std::runtime_error& error) {
      threw = std::string(error.what()) == "from a task";
    }
    EXPECT_TRUE(threw);
    EXPECT_EQ(calls.load(), 3);
  }
  std::atomic<int> calls{0};
  pool.Run([&](int) { ++calls; });
  EXPECT_EQ(calls.load(), 4);
}

TEST(ThreadPool, "can be made and destroyed many times, also without ever running") {
  for (int i = 0; i < 50; ++i) {
    ThreadPool idle(4, i % 2 == 0);
    ThreadPool used(3, i % 2 == 0);
    used.Run([](int) {});
  }
}

TEST(ThreadPool, "SplitWork covers every item once and differs by one at most") {
  for (int64_t count : {0, 1, 2, 7, 8, 9, 1000}) {
    for (int num_threads : {1, 2, 3, 8}) {
      int64_t next = 0;
      for (int thread = 0; thread < num_threads; ++thread) {
        const WorkRange part = SplitWork(count, thread, num_threads);
        EXPECT_EQ(part.begin, next);
        EXPECT_TRUE(part.end - part.begin >= count / num_threads && part.end - part.begin <= count / num_threads + 1);
        next = part.end;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(Backoff, "loses no wake-up when two threads pass a token to and fro, parking or not") {
  for (bool oversubscribed : {false, true}) {
    Backoff backoff(oversubscribed);
    std::atomic<int> turn{0};
    constexpr int kRounds = 4000;
    const auto play = [&](int player) {
      for (int i = 0; i < kRounds; ++i) {
        backoff.Wait([&] { return turn.load() == 2 * i + player; });
        // Now and then long enough for the other to park.
        if (i % 400 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        turn.store(2 * i + player + 1);
        backoff.NotifyAll();
      }
    };
    std::thread other(play, 1);
    play(0);
    other.join();
    EXPECT_EQ(turn.load(), 2 * kRounds);
  }
}

TEST(Backoff, "gives up at its deadline, not before") {
  Backoff backoff(false);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(!backoff.WaitFor(std::chrono::milliseconds(20), [] { return false; }));
  EXPECT_TRUE(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(20));
  EXPECT_TRUE(backoff.WaitFor(std::chrono::milliseconds(0), [] { return true; }));
}

TEST(Stream, "scratch is aligned, grows, and is kept when less is asked for") {
  Stream stream(1, false, CpuIsa::kScalar);
  void* first = stream.Scratch(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, uintptr_t{0});
  EXPECT_EQ(stream.Scratch(10), first);
  char* grown = static_cast<char*>(stream.Scratch(5 << 20));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(grown) % 64, uintptr_t{0});
  grown[(5 << 20) - 1] = 1;
  EXPECT_EQ(stream.Scratch(1000), static_cast<void*>(grown));
}

TEST(CpuIsa, "is chosen by name, the empty name meaning the best, and refused when unknown") {
  EXPECT_TRUE(ChooseCpuIsa("") == DetectCpuIsa());
  EXPECT_TRUE(ChooseCpuIsa("scalar") == CpuIsa::kScalar);
  for (CpuIsa isa : {CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Vnni, CpuIsa::kAvx512BFloat16, CpuIsa::kAmx}) {
    if (SupportsCpuIsa(isa)) {
      EXPECT_TRUE(ChooseCpuIsa(CpuIsaName(isa)) == isa);
    } else {
      EXPECT_ERROR(ErrorCode::kInvalidArgument, ChooseCpuIsa(CpuIsaName(isa)));
    }
  }
  EXPECT_ERROR(ErrorCode::kInvalidArgument, ChooseCpuIsa("neon"));
}

TEST(Backoff, "does not count time against a limit in which the waiter itself was held up") {
  using std::chrono::milliseconds;
  Backoff backoff(/*oversubscribed=*/true);
  constexpr int kPollsBeforeParking = 201;
  int num_polls = 0;
  EXPECT_TRUE(backoff.WaitFor(milliseconds(250), [&] {
    ++num_polls;
    if (num_polls == kPollsBeforeParking + 1) std::this_thread::sleep_for(milliseconds(300));  // stopped
    return num_polls > kPollsBeforeParking + 3;
  }));
}

TEST(Backoff, "gives up after its limit") {
  Backoff backoff(/*oversubscribed=*/true);
  EXPECT_TRUE(!backoff.WaitFor(std::chrono::milliseconds(20), [] { return false; }));
}

}  // namespace
}  // namespace heddle
