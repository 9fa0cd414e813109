#include "comm/local_communicator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>

#include "base/backoff.h"
#include "device/buffer.h"

namespace heddle {
namespace {

constexpr int kMaxRanks = 8;
constexpr int kNumSlots = 2;  // of a rank

// Beyond this many elements, times the ranks more than two, reading everybody's part costs more than a second barrier.
constexpr int64_t kMaxOneShotElements = 16384;

// A rank in a collective is in the middle of a step and has nothing else to do. One that parked would come late to the
// next collective.
constexpr std::chrono::microseconds kPollTime{2000};

// What a rank shows to the others in one collective, and the memory behind it. Written by its rank before the
// collective's first barrier, read by the others after it.
struct Slot {
  const char* collective = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  std::shared_ptr<void> memory;
  size_t capacity = 0;
  float* data = nullptr;  // [rows, columns]
};

// State of one group. Everything a peer may read lives here and not in a communicator or a caller's tensor, so that a
// rank that gave up can unwind while slower ones still read.
struct Group {
  Group(int num_ranks, std::chrono::milliseconds limit, bool oversubscribed)
      : size(num_ranks), timeout(limit), arrival(oversubscribed, kPollTime) {}

  const int size;
  const std::chrono::milliseconds timeout;

  Backoff arrival;
  alignas(64) std::atomic<uint64_t> num_arrived{0};  // at barriers, all ranks together, ever
  alignas(64) std::atomic<bool> failed{false};
  std::atomic<bool> failure_claimed{false};
  ErrorCode failure_code = ErrorCode::kInternal;  // published by `failed`

  // Two a rank, used in turn: whoever writes slot i again has passed the barrier of the collective between, and so
  // has everybody who read it.
  struct alignas(64) RankSlots {
    std::array<Slot, kNumSlots> slots;
  };
  std::array<RankSlots, kMaxRanks> ranks;

  // The first failure stands.
  void Fail(ErrorCode code) {
    if (failure_claimed.exchange(true)) return;
    failure_code = code;
    failed.store(true);
    arrival.NotifyAll();
  }
};

// destination[i] = the sum over ranks of sources[rank][i], in a balanced tree.
template <int kSize>
void SumTree(const float* const* sources, int64_t count, float* destination) {
  for (int64_t i = 0; i < count; ++i) {
    float sums[kSize];
    for (int rank = 0; rank < kSize; ++rank) sums[rank] = sources[rank][i];
    for (int step = 1; step < kSize; step *= 2) {
      for (int rank = 0; rank < kSize; rank += 2 * step) sums[rank] += sums[rank + step];
    }
    destination[i] = sums[0];
  }
}

void SumRanks(int size, const float* const* sources, int64_t count, float* destination) {
  switch (size) {
    case 2:
      return SumTree<2>(sources, count, destination);
    case 4:
      return SumTree<4>(sources, count, destination);
    default:
      return SumTree<8>(sources, count, destination);
  }
}

void CopyRows(const float* source, int64_t source_stride, int64_t rows, int64_t columns, float* destination,
              int64_t destination_stride) {
  if (rows == 0 || columns == 0) return;
  if (source_stride == columns && destination_stride == columns) {
    columns *= rows;
    rows = 1;
  }
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(destination + row * destination_stride, source + row * source_stride,
                static_cast<size_t>(columns) * sizeof(float));
  }
}

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(int rank, std::shared_ptr<Group> group) : rank_(rank), group_(std::move(group)) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size; }

  void AllReduceSum(const TensorView& x) override;
  void GatherColumns(const TensorView& x, int root, const TensorView& out) override;
  void Barrier() override;
  void Abort(ErrorCode code) override { group_->Fail(code); }

 private:
  const Slot& SlotOf(int rank) const {
    return group_->ranks[static_cast<size_t>(rank)].slots[num_collectives_ % kNumSlots];
  }

  // Begins a collective: copies x into this rank's slot for the others to read.
  const Slot& Publish(const char* collective, const TensorView& x);
  void CheckPeers(const char* collective, int64_t rows) const;
  void SumToX(const TensorView& x) const;
  void ReduceScatterAndGather(const TensorView& x);

  // Waits until every rank has come here.
  void Arrive(const char* collective);
  void CheckAlive(const char* collective) const;

  const int rank_;
  const std::shared_ptr<Group> group_;
  uint64_t num_collectives_ = 0;
  uint64_t num_barriers_ = 0;
};

void LocalCommunicator::CheckAlive(const char* collective) const {
  if (!group_->failed.load()) return;
  const ErrorCode code = group_->failure_code;
  const std::string where = "rank " + std::to_string(rank_) + " left " + collective + " because ";
  switch (code) {
    case ErrorCode::kCommTimeout:
      throw Error(code, where + "another rank had waited longer than " + std::to_string(group_->timeout.count()) +
                            " ms for its peers");
    case ErrorCode::kRankFailed:
      throw Error(code, where + "another rank failed");
    default:
      throw Error(code, where + "the group was aborted (" + ErrorCodeName(code) + ")");
  }
}

void LocalCommunicator::Arrive(const char* collective) {
  Group& group = *group_;
  const uint64_t everybody = ++num_barriers_ * static_cast<uint64_t>(group.size);
  if (group.num_arrived.fetch_add(1) + 1 == everybody) {
    group.arrival.NotifyAll();
  } else {
    const auto arrived = [&] { return group.num_arrived.load() >= everybody || group.failed.load(); };
    if (!group.arrival.WaitFor(group.timeout, arrived)) {
      group.Fail(ErrorCode::kCommTimeout);
      throw Error(ErrorCode::kCommTimeout, "rank " + std::to_string(rank_) + " waited in " + collective +
                                               " longer than the limit of " + std::to_string(group.timeout.count()) +
                                               " ms for its peers");
    }
  }
  CheckAlive(collective);
}

const Slot& LocalCommunicator::Publish(const char* collective, const TensorView& x) {
  HEDDLE_CHECK(x.dtype == DType::kFloat32 && x.shape.rank() == 2, x.shape.ToString());
  CheckAlive(collective);
  ++num_collectives_;
  Slot& slot = group_->ranks[static_cast<size_t>(rank_)].slots[num_collectives_ % kNumSlots];
  const size_t bytes = static_cast<size_t>(x.shape.NumElements()) * sizeof(float);
  if (bytes > slot.capacity) {
    slot.capacity = 0;
    slot.memory = AllocateHost(bytes);
    slot.capacity = bytes;
  }
  slot.collective = collective;
  slot.rows = x.dim(0);
  slot.columns = x.dim(1);
  slot.data = static_cast<float*>(slot.memory.get());
  CopyRows(x.Data<float>(), x.row_stride, x.dim(0), x.dim(1), slot.data, x.dim(1));
  return slot;
}

// Ranks that disagree about what they do would read beyond each other's memory.
void LocalCommunicator::CheckPeers(const char* collective, int64_t rows) const {
  for (int rank = 0; rank < size(); ++rank) {
    const Slot& slot = SlotOf(rank);
    HEDDLE_CHECK(std::strcmp(slot.collective, collective) == 0 && slot.rows == rows,
                 "rank " + std::to_string(rank_) + " calls " + collective + " with " + std::to_string(rows) +
                     " rows, rank " + std::to_string(rank) + " " + slot.collective + " with " +
                     std::to_string(slot.rows));
  }
}

void LocalCommunicator::AllReduceSum(const TensorView& x) {
  static constexpr const char* kName = "AllReduceSum";
  if (size() == 1) return CheckAlive(kName);
  Publish(kName, x);
  Arrive(kName);
  CheckPeers(kName, x.dim(0));
  for (int rank = 0; rank < size(); ++rank) HEDDLE_CHECK(SlotOf(rank).columns == x.dim(1), x.shape.ToString());
  if (x.shape.NumElements() * (size() - 2) <= kMaxOneShotElements) {
    SumToX(x);
  } else {
    ReduceScatterAndGather(x);
  }
}

// Each rank for itself, from everybody's slots.
void LocalCommunicator::SumToX(const TensorView& x) const {
  const bool contiguous = x.IsContiguous();
  const int64_t rows = contiguous ? 1 : x.dim(0);
  const int64_t columns = contiguous ? x.shape.NumElements() : x.dim(1);
  for (int64_t row = 0; row < rows; ++row) {
    std::array<const float*, kMaxRanks> sources{};
    for (int rank = 0; rank < size(); ++rank) {
      sources[static_cast<size_t>(rank)] = SlotOf(rank).data + row * columns;
    }
    SumRanks(size(), sources.data(), columns, x.Row<float>(row));
  }
}

// Each rank sums one range of elements and leaves it in its own slot, then takes the other ranges from the others'.
void LocalCommunicator::ReduceScatterAndGather(const TensorView& x) {
  const int64_t count = x.shape.NumElements();
  const auto boundary = [&](int rank) { return std::min(count, (count / 16 + 1) * rank / size() * 16); };
  const int64_t begin = boundary(rank_);

  std::array<const float*, kMaxRanks> sources{};
  for (int rank = 0; rank < size(); ++rank) sources[static_cast<size_t>(rank)] = SlotOf(rank).data + begin;
  SumRanks(size(), sources.data(), boundary(rank_ + 1) - begin, SlotOf(rank_).data + begin);
  Arrive("AllReduceSum");

  const int64_t columns = x.dim(1);
  for (int rank = 0; rank < size(); ++rank) {
    for (int64_t i = boundary(rank), end = boundary(rank + 1); i < end;) {
      const int64_t row = i / columns;
      const int64_t row_end = std::min(end, (row + 1) * columns);
      std::memcpy(x.Row<float>(row) + i - row * columns, SlotOf(rank).data + i,
                  static_cast<size_t>(row_end - i) * sizeof(float));
      i = row_end;
    }
  }
}

void LocalCommunicator::GatherColumns(const TensorView& x, int root, const TensorView& out) {
  static constexpr const char* kName = "GatherColumns";
  HEDDLE_CHECK(0 <= root && root < size(), std::to_string(root));
  if (size() > 1) {
    Publish(kName, x);
    Arrive(kName);
    CheckPeers(kName, x.dim(0));
  } else {
    CheckAlive(kName);
  }
  if (rank_ != root) return;

  HEDDLE_CHECK(out.dtype == DType::kFloat32 && out.shape.rank() == 2 && out.dim(0) == x.dim(0), out.shape.ToString());
  int64_t column = 0;
  for (int rank = 0; rank < size(); ++rank) {
    const bool own = rank == rank_;
    const int64_t columns = own ? x.dim(1) : SlotOf(rank).columns;
    HEDDLE_CHECK(column + columns <= out.dim(1), out.shape.ToString());
    CopyRows(own ? x.Data<float>() : SlotOf(rank).data, own ? x.row_stride : columns, x.dim(0), columns,
             out.Data<float>() + column, out.row_stride);
    column += columns;
  }
  HEDDLE_CHECK(column == out.dim(1), std::to_string(column) + " columns for " + out.shape.ToString());
}

void LocalCommunicator::Barrier() {
  CheckAlive("Barrier");
  if (size() > 1) Arrive("Barrier");
}

}  // namespace

std::vector<std::unique_ptr<Communicator>> CreateLocalGroup(int size, std::chrono::milliseconds timeout,
                                                            bool oversubscribed) {
  HEDDLE_CHECK(size == 1 || size == 2 || size == 4 || size == 8, std::to_string(size));
  const auto group = std::make_shared<Group>(size, timeout, oversubscribed);
  std::vector<std::unique_ptr<Communicator>> communicators;
  communicators.reserve(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank) communicators.push_back(std::make_unique<LocalCommunicator>(rank, group));
  return communicators;
}

int64_t LocalCommunicatorBytes(int64_t num_elements) {
  return num_elements * static_cast<int64_t>(kNumSlots * sizeof(float));
}

}  // namespace heddle
