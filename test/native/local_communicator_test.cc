#include "comm/local_communicator.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "test.h"

namespace heddle {
namespace {

using Communicators = std::vector<std::unique_ptr<Communicator>>;
constexpr std::chrono::milliseconds kLongTimeout{60000};

// Runs body(rank) on a thread of its own for every rank; what a rank threw, or null.
std::vector<std::unique_ptr<Error>> RunRanks(int size, const std::function<void(int rank)>& body) {
  std::vector<std::unique_ptr<Error>> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (const Error& error) {
        errors[static_cast<size_t>(rank)] = std::make_unique<Error>(error);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

void ExpectNoErrors(const std::vector<std::unique_ptr<Error>>& errors) {
  for (const auto& error : errors) EXPECT_EQ(error ? std::string(error->what()) : "", "");
}

// Element i of rank r's input: magnitudes so different that any other order of summation shows.
float Input(int rank, int64_t i, int round) {
  const uint32_t hash = static_cast<uint32_t>(i * 7919 + rank * 104729 + round * 31 + 17) * 2654435761u;
  const float fraction = static_cast<float>(hash >> 8) / 16777216.0f - 0.5f;
  return fraction * static_cast<float>(1 << (hash % 20));
}

float TreeSum(int begin, int count, int64_t i, int round) {
  if (count == 1) return Input(begin, i, round);
  return TreeSum(begin, count / 2, i, round) + TreeSum(begin + count / 2, count / 2, i, round);
}

// A strided [rows, columns] view and the memory around it.
struct Buffer {
  Buffer(int64_t rows, int64_t columns, int64_t stride, float fill = -7.0f)
      : memory(static_cast<size_t>(rows * stride + 1), fill),
        view(memory.data(), DType::kFloat32, {rows, columns}, stride) {}
  std::vector<float> memory;
  TensorView view;
};

void FillInput(const TensorView& x, int rank, int round) {
  for (int64_t row = 0; row < x.dim(0); ++row) {
    for (int64_t i = 0; i < x.dim(1); ++i) x.Row<float>(row)[i] = Input(rank, row * x.dim(1) + i, round);
  }
}

int CountWrongSums(const TensorView& x, int size, int round) {
  int wrong = 0;
  for (int64_t row = 0; row < x.dim(0); ++row) {
    for (int64_t i = 0; i < x.dim(1); ++i) {
      wrong += x.Row<float>(row)[i] != TreeSum(0, size, row * x.dim(1) + i, round);
    }
    for (int64_t i = x.dim(1); i < x.row_stride; ++i) wrong += x.Row<float>(row)[i] != -7.0f;
  }
  return wrong;
}

TEST(LocalCommunicator,
     "sums in the balanced tree over ranks, bit for bit on every rank, small and large, strided or not") {
  for (int size : {1, 2, 4, 8}) {
    for (bool oversubscribed : {false, true}) {
      const Communicators group = CreateLocalGroup(size, kLongTimeout, oversubscribed);
      std::atomic<int> wrong{0};
      ExpectNoErrors(RunRanks(size, [&](int rank) {
        Communicator& comm = *group[static_cast<size_t>(rank)];
        EXPECT_EQ(comm.rank(), rank);
        EXPECT_EQ(comm.size(), size);
        int round = 0;
        for (int64_t rows : {0, 1, 3, 67}) {
          for (int64_t columns : {0, 1, 5, 64, 1000}) {
            for (int64_t padding : {0, 3}) {
              Buffer x(rows, columns, columns + padding);
              FillInput(x.view, rank, ++round);
              comm.AllReduceSum(x.view);
              wrong += CountWrongSums(x.view, size, round);
            }
          }
        }
      }));
      EXPECT_EQ(wrong.load(), 0);
    }
  }
}

TEST(LocalCommunicator, "stays right over thousands of collectives of mixed kinds and sizes") {
  for (int size : {2, 4, 8}) {
    const Communicators group = CreateLocalGroup(size, kLongTimeout, true);
    std::atomic<int> wrong{0};
    ExpectNoErrors(RunRanks(size, [&](int rank) {
      Communicator& comm = *group[static_cast<size_t>(rank)];
      for (int round = 0; round < 3000; ++round) {
        const int64_t columns = round % 100 == 99 ? 20000 : 1 + round % 50;
        Buffer x(1 + round % 3, columns, columns);
        FillInput(x.view, rank, round);
        if (round % 7 == 0) comm.Barrier();
        if (round % 5 == 0) {
          Buffer out(x.view.dim(0), columns * size, columns * size);
          comm.GatherColumns(x.view, round % size, out.view);
          if (rank != round % size) continue;
          for (int from = 0; from < size; ++from)
            wrong += out.view.Row<float>(0)[from * columns] != Input(from, 0, round);
        } else {
          comm.AllReduceSum(x.view);
          wrong += CountWrongSums(x.view, size, round);
        }
      }
    }));
    EXPECT_EQ(wrong.load(), 0);
  }
}

TEST(LocalCommunicator, "gathers uneven and empty columns in rank order into strided rows of the root") {
  for (int size : {1, 2, 4, 8}) {
    const Communicators group = CreateLocalGroup(size, kLongTimeout, true);
    for (int root = 0; root < size; ++root) {
      constexpr int64_t kRows = 3;
      // Rank r brings (3 r + 2) mod 5 columns: 2, 0, 3, 1, 4, 2, 0, 3.
      const auto columns_of = [](int rank) { return int64_t{(3 * rank + 2) % 5}; };
      int64_t total = 0;
      for (int rank = 0; rank < size; ++rank) total += columns_of(rank);
      Buffer out(kRows, total, total + 2);
      ExpectNoErrors(RunRanks(size, [&](int rank) {
        Buffer x(kRows, columns_of(rank), columns_of(rank) + 1);
        FillInput(x.view, rank, root);
        group[static_cast<size_t>(rank)]->GatherColumns(x.view, root, rank == root ? out.view : TensorView());
      }));
      for (int64_t row = 0; row < kRows; ++row) {
        const float* at = out.view.Row<float>(row);
        for (int rank = 0; rank < size; ++rank) {
          for (int64_t i = 0; i < columns_of(rank); ++i)
            EXPECT_EQ(*at++, Input(rank, row * columns_of(rank) + i, root));
        }
        EXPECT_EQ(*at, -7.0f);
      }
    }
  }
}

TEST(LocalCommunicator, "lets nobody through a barrier before the last rank has come") {
  const Communicators group = CreateLocalGroup(4, kLongTimeout, true);
  std::atomic<int> arrived{0};
  std::atomic<int> early{0};
  ExpectNoErrors(RunRanks(4, [&](int rank) {
    for (int round = 1; round <= 500; ++round) {
      if (rank == 3 && round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
      ++arrived;
      group[static_cast<size_t>(rank)]->Barrier();
      early += arrived < 4 * round;
      group[static_cast<size_t>(rank)]->Barrier();
    }
  }));
  EXPECT_EQ(early.load(), 0);
}

TEST(LocalCommunicator, "fails on every rank when one misses the deadline, naming rank, collective and limit") {
  const Communicators group = CreateLocalGroup(4, std::chrono::milliseconds(30), true);
  const auto errors = RunRanks(4, [&](int rank) {
    Buffer x(1, 8, 8);
    if (rank != 2) group[static_cast<size_t>(rank)]->AllReduceSum(x.view);
  });
  int described = 0;
  for (int rank : {0, 1, 3}) {
    const auto& error = errors[static_cast<size_t>(rank)];
    EXPECT_TRUE(error != nullptr);
    if (!error) continue;
    EXPECT_TRUE(error->code() == ErrorCode::kCommTimeout);
    const std::string message = error->what();
    EXPECT_TRUE(message.find("rank " + std::to_string(rank)) != std::string::npos);
    EXPECT_TRUE(message.find("AllReduceSum") != std::string::npos);
    described += message.find("limit of 30 ms") != std::string::npos;
  }
  EXPECT_TRUE(described >= 1);
  EXPECT_ERROR(ErrorCode::kCommTimeout, group[2]->Barrier());
}

TEST(LocalCommunicator, "wakes every waiting rank at once when another thread aborts the group, and stays aborted") {
  for (ErrorCode code : {ErrorCode::kCancelled, ErrorCode::kRankFailed}) {
    const Communicators group = CreateLocalGroup(8, kLongTimeout, true);
    std::thread aborter([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      group[7]->Abort(code);
      group[6]->Abort(ErrorCode::kInternal);  // too late to change anything
    });
    const auto errors = RunRanks(7, [&](int rank) {
      Buffer x(1, 8, 8);
      if (rank % 3 == 0) group[static_cast<size_t>(rank)]->AllReduceSum(x.view);
      if (rank % 3 == 1) group[static_cast<size_t>(rank)]->Barrier();
      if (rank % 3 == 2) group[static_cast<size_t>(rank)]->GatherColumns(x.view, 0, TensorView());
    });
    aborter.join();
    for (const auto& error : errors) EXPECT_TRUE(error && error->code() == code);
    Buffer x(1, 8, 8);
    EXPECT_ERROR(code, group[7]->AllReduceSum(x.view));
    EXPECT_ERROR(code, group[0]->GatherColumns(x.view, 0, x.view));
    EXPECT_ERROR(code, group[3]->Barrier());
  }
}

TEST(LocalCommunicator, "survives an abort in the middle of a storm of collectives, in any order of destruction") {
  for (int round = 0; round < 30; ++round) {
    Communicators group = CreateLocalGroup(4, kLongTimeout, round % 2 == 0);
    const auto errors = RunRanks(4, [&](int rank) {
      // Each rank owns its communicator and its tensor here, so both end while the others still run.
      const std::unique_ptr<Communicator> comm = std::move(group[static_cast<size_t>(rank)]);
      for (int i = 0;; ++i) {
        Buffer x(1 + i % 5, 3000, 3000);
        if (rank == 1 && i == 3 + round) comm->Abort(ErrorCode::kCancelled);
        comm->AllReduceSum(x.view);
      }
    });
    for (const auto& error : errors) EXPECT_TRUE(error && error->code() == ErrorCode::kCancelled);
  }
}

TEST(LocalCommunicator, "refuses collectives on which the ranks disagree") {
  const Communicators group = CreateLocalGroup(2, kLongTimeout, true);
  const auto errors = RunRanks(2, [&](int rank) {
    Buffer x(1 + rank, 8, 8);
    group[static_cast<size_t>(rank)]->AllReduceSum(x.view);
  });
  for (const auto& error : errors) EXPECT_TRUE(error && error->code() == ErrorCode::kInternal);
}

}  // namespace
}  // namespace heddle
