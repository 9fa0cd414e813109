#include "comm/local_communicator.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "base/backoff.h"

namespace heddle {
namespace {

// Sums of up to this many floats are done by every rank for itself; larger ones in parts. At this size one more
// barrier costs about as much as reading everybody's buffer.
constexpr int64_t kMaxOneShotFloats = 8192;

// What the ranks of a group share.
struct Group {
  Group(int num_ranks, std::chrono::milliseconds limit, bool oversubscribed)
      : size(num_ranks), timeout(limit), backoff(oversubscribed) {
    for (auto& views : published) views.resize(static_cast<size_t>(num_ranks));
  }

  const int size;
  const std::chrono::milliseconds timeout;
  Backoff backoff;
  std::atomic<uint64_t> num_arrivals{0};  // at all barriers so far
  std::atomic<bool> aborted{false};
  std::atomic<ErrorCode> abort_code{ErrorCode::kRankFailed};
  // Two sets in turn, one entry a rank: written by its rank before a barrier, read by all after it. A rank that writes
  // to a set again has passed the barrier of the exchange between, which everybody enters only after having read it.
  std::vector<TensorView> published[2];
};

// Element i of n buffers, joined in a balanced tree.
template <int n>
float TreeSum(const float* const* buffers, int64_t i) {
  if constexpr (n == 1) {
    return buffers[0][i];
  } else {
    return TreeSum<n / 2>(buffers, i) + TreeSum<n / 2>(buffers + n / 2, i);
  }
}

void SumBuffers(int n, const float* const* buffers, int64_t begin, int64_t end, float* out) {
  const auto loop = [&](auto sum) {
    for (int64_t i = begin; i < end; ++i) out[i - begin] = sum(buffers, i);
  };
  if (n == 2) return loop([](const float* const* b, int64_t i) { return TreeSum<2>(b, i); });
  if (n == 4) return loop([](const float* const* b, int64_t i) { return TreeSum<4>(b, i); });
  loop([](const float* const* b, int64_t i) { return TreeSum<8>(b, i); });
}

class LocalCommunicator : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<Group> group, int rank) : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size; }

  void AllReduceSum(const TensorView& x) override {
    if (size() == 1) return;
    if (!x.IsContiguous() || x.shape.NumElements() <= kMaxOneShotFloats) {
      ReduceInOneShot(x);
    } else {
      ReduceInParts(x);
    }
  }

  void GatherColumns(const TensorView& x, int root, const TensorView& out) override {
    const std::vector<TensorView>& parts = Publish(x);
    if (rank_ == root) {
      int64_t column = 0;
      for (const TensorView& part : parts) {
        HEDDLE_CHECK(part.dim(0) == out.dim(0) && column + part.dim(1) <= out.dim(1), part.shape.ToString());
        for (int64_t row = 0; row < part.dim(0); ++row) {
          std::memcpy(out.Row<float>(row) + column, part.Row<float>(row),
                      static_cast<size_t>(part.dim(1)) * sizeof(float));
        }
        column += part.dim(1);
      }
      HEDDLE_CHECK(column == out.dim(1), std::to_string(column) + " columns for " + out.shape.ToString());
    }
    Wait("gather");  // nobody may touch its part while the root copies
  }

  void Barrier() override { Wait("barrier"); }

  void Abort(ErrorCode code) override {
    if (!group_->aborted.load()) group_->abort_code.store(code);
    group_->aborted.store(true);
    group_->backoff.NotifyAll();
  }

 private:
  // Exchanges views: what every rank passed, by rank.
  const std::vector<TensorView>& Publish(const TensorView& x) {
    std::vector<TensorView>& views = group_->published[num_exchanges_++ % 2];
    views[static_cast<size_t>(rank_)] = x;
    Wait("exchange");
    return views;
  }

  // One barrier: copies of x stand in two buffers in turn, for the same reason as the views of an exchange.
  void ReduceInOneShot(const TensorView& x) {
    const int64_t count = x.shape.NumElements();
    const int64_t row_size = x.dim(0) > 0 ? count / x.dim(0) : 0;
    std::vector<float>& own = copies_[num_one_shots_++ % 2];
    if (static_cast<int64_t>(own.size()) < count) own.resize(static_cast<size_t>(count));
    for (int64_t row = 0; row < x.dim(0); ++row) std::copy_n(x.Row<float>(row), row_size, own.data() + row * row_size);
    const float* buffers[kMaxRanks];
    Buffers(Publish(TensorView(own.data(), DType::kFloat32, {count})), count, buffers);
    for (int64_t row = 0; row < x.dim(0); ++row) {
      SumBuffers(size(), buffers, row * row_size, (row + 1) * row_size, x.Row<float>(row));
    }
  }

  void ReduceInParts(const TensorView& x) {
    const int64_t count = x.shape.NumElements();
    const auto boundary = [&](int rank) { return count * rank / size(); };
    const float* buffers[kMaxRanks];
    Buffers(Publish(TensorView(x.data, DType::kFloat32, {count})), count, buffers);
    const int64_t own_count = boundary(rank_ + 1) - boundary(rank_);
    if (static_cast<int64_t>(part_.size()) < own_count) part_.resize(static_cast<size_t>(own_count));
    SumBuffers(size(), buffers, boundary(rank_), boundary(rank_ + 1), part_.data());
    Wait("all-reduce");  // everybody has read x
    const std::vector<TensorView>& parts = Publish(TensorView(part_.data(), DType::kFloat32, {own_count}));
    for (int rank = 0; rank < size(); ++rank) {
      const TensorView& part = parts[static_cast<size_t>(rank)];
      std::copy_n(part.Data<float>(), part.dim(0), x.Data<float>() + boundary(rank));
    }
    Wait("all-reduce");  // everybody has read the parts
  }

  static void Buffers(const std::vector<TensorView>& views, int64_t count, const float** buffers) {
    for (const TensorView& view : views) {
      HEDDLE_CHECK(view.dim(0) == count, "ranks disagree on the size of a sum");
      *buffers++ = view.Data<float>();
    }
  }

  void Wait(const char* what) {
    Group& group = *group_;
    const uint64_t target = ++num_barriers_ * static_cast<uint64_t>(group.size);
    if (group.num_arrivals.fetch_add(1) + 1 == target) group.backoff.NotifyAll();
    const bool arrived = group.backoff.WaitFor(
        group.timeout, [&] { return group.num_arrivals.load() >= target || group.aborted.load(); });
    if (group.aborted.load()) {
      throw Error(group.abort_code.load(), "rank " + std::to_string(rank_) + " was stopped in a collective");
    }
    if (arrived) return;
    Abort(ErrorCode::kCommTimeout);
    throw Error(ErrorCode::kCommTimeout, "rank " + std::to_string(rank_) + " waited longer than " +
                                             std::to_string(group.timeout.count()) + " ms for its peers (" + what +
                                             ")");
  }

  static constexpr int kMaxRanks = 8;

  std::shared_ptr<Group> group_;
  const int rank_;
  uint64_t num_barriers_ = 0;
  uint64_t num_exchanges_ = 0;
  uint64_t num_one_shots_ = 0;
  std::vector<float> copies_[2];
  std::vector<float> part_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> CreateLocalGroup(int size, std::chrono::milliseconds timeout,
                                                            bool oversubscribed) {
  HEDDLE_CHECK(size == 1 || size == 2 || size == 4 || size == 8, std::to_string(size) + " ranks");
  auto group = std::make_shared<Group>(size, timeout, oversubscribed);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank) ranks.push_back(std::make_unique<LocalCommunicator>(group, rank));
  return ranks;
}

}  // namespace heddle
