#include "comm/peer_communicator.h"

#include <utility>

#include "base/rounding.h"
#include "comm/abortable.h"
#include "comm/local_communicator.h"
#include "device/stream.h"
#include "heddle_cuda.h"
#include "tensor/cuda_matrix.h"

namespace heddle {
namespace {

// What a row is filled up to on its way.
constexpr int64_t kPackBytes = 16;

// The fused kernel keeps a row in shared memory, in float32; every GPU has room for this many elements.
constexpr int64_t kMaxNormSize = 16384;

// What the ranks of one group share. Thread-safe.
class PeerGroup {
 public:
  PeerGroup(int size, std::chrono::milliseconds timeout) : timeout_(timeout), streams_(static_cast<size_t>(size)) {}

  // Each rank's stream, idle, before one of them calls Create.
  void Join(int rank, HeddleCudaStream* stream) { streams_[static_cast<size_t>(rank)] = stream; }

  // Makes nothing where ranks do not reach each other's memory.
  void Create() {
    const auto size = static_cast<int>(streams_.size());
    const auto timeout_us = std::chrono::microseconds(timeout_).count();
    HeddleCudaPeerGroup* group = nullptr;
    const HeddleCudaStatus status =
        CudaApi().peer_group_create(streams_.data(), size, MaxPeerMessageBytes(size), timeout_us, &group);
    if (status == kHeddleCudaUnavailable) return;
    CheckCuda(status);
    group_.Adopt(group);
  }

  // Null before Create, and where that made nothing.
  HeddleCudaPeerGroup* get() const { return group_.get(); }
  void Abort(ErrorCode code) { group_.Abort(code); }
  void Abandon() { group_.Abandon(); }
  void Check(HeddleCudaStatus status) { group_.Check(status); }

 private:
  const std::chrono::milliseconds timeout_;
  std::vector<HeddleCudaStream*> streams_;
  Abortable<HeddleCudaPeerGroup, &HeddleCudaApi::peer_group_abort, &HeddleCudaApi::peer_group_destroy> group_;
};

class PeerCommunicator : public Communicator {
 public:
  // `host` joins the ranks' threads.
  PeerCommunicator(std::unique_ptr<Communicator> other, std::unique_ptr<Communicator> host,
                   std::shared_ptr<PeerGroup> group)
      : other_(std::move(other)), host_(std::move(host)), group_(std::move(group)) {}

  // Any rank's device may write to the memory of all.
  ~PeerCommunicator() override {
    if (stream_ != nullptr && stream_->is_abandoned()) group_->Abandon();
  }
  PeerCommunicator(const PeerCommunicator&) = delete;
  PeerCommunicator& operator=(const PeerCommunicator&) = delete;

  int rank() const override { return other_->rank(); }
  int size() const override { return other_->size(); }

  void Connect(Stream& stream) override {
    other_->Connect(stream);
    stream_ = stream.cuda();
    group_->Join(rank(), stream_->get());
    // Making a group waits for the devices: no rank may wait for another in a kernel meanwhile.
    stream_->Synchronize();
    host_->Barrier();
    if (rank() == 0) group_->Create();
    host_->Barrier();
  }

  void AllReduceSum(const TensorView& x) override {
    if (!Fits(1, x.shape.NumElements(), x.dtype)) return other_->AllReduceSum(x);
    Launch([&] { return CudaApi().one_shot_all_reduce_sum(stream_->get(), group_->get(), rank(), CudaMatrixOf(x)); });
  }

  bool TryAllReduceAddRmsNorm(const TensorView& x, const TensorView& residual, const TensorView& weight, float epsilon,
                              const TensorView& y) override {
    if (x.dim(1) > kMaxNormSize || !Fits(x.dim(0), x.dim(1), x.dtype)) return false;
    const HeddleCudaAddRmsNorm op{.x = CudaMatrixOf(x),
                                  .residual = CudaMatrixOf(residual),
                                  .weight = weight.Data<float>(),
                                  .epsilon = epsilon,
                                  .y = CudaMatrixOf(y)};
    Launch([&] { return CudaApi().one_shot_all_reduce_add_rms_norm(stream_->get(), group_->get(), rank(), &op); });
    return true;
  }

  void GatherColumns(const TensorView& x, int root, const TensorView& out) override {
    other_->GatherColumns(x, root, out);
  }
  void Broadcast(const TensorView& x, int root) override { other_->Broadcast(x, root); }
  void Barrier() override { other_->Barrier(); }
  void Quiesce() override { other_->Quiesce(); }

  void CheckHealth() override {
    if (group_->get() != nullptr) group_->Check(CudaApi().peer_group_async_error(group_->get()));
    other_->CheckHealth();
  }

  void Abort(ErrorCode code) override {
    host_->Abort(code);
    group_->Abort(code);
    other_->Abort(code);
  }

 private:
  bool Fits(int64_t rows, int64_t columns, DType dtype) const {
    const int64_t row_bytes = columns * static_cast<int64_t>(DTypeSize(dtype));
    const int64_t sent_bytes = RoundUp(row_bytes, kPackBytes);
    return group_->get() != nullptr && rows * sent_bytes <= MaxPeerMessageBytes(size());
  }

  // Outside a graph what follows may be done for the first time, and wait until nothing runs on the device; so the
  // kernel has a shared device for itself.
  template <typename Collective>
  void Launch(const Collective& collective) {
    if (stream_->is_capturing()) return group_->Check(collective());
    Quiesce();
    group_->Check(collective());
    Quiesce();
  }

  const std::unique_ptr<Communicator> other_;
  const std::unique_ptr<Communicator> host_;
  const std::shared_ptr<PeerGroup> group_;
  CudaStream* stream_ = nullptr;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> CreatePeerGroup(std::vector<std::unique_ptr<Communicator>> others,
                                                           std::chrono::milliseconds timeout) {
  const auto size = static_cast<int>(others.size());
  const auto group = std::make_shared<PeerGroup>(size, timeout);
  // They meet where they connect, which is not worth spinning for.
  std::vector<std::unique_ptr<Communicator>> host = CreateLocalGroup(size, timeout, true);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (size_t rank = 0; rank < others.size(); ++rank) {
    communicators.push_back(std::make_unique<PeerCommunicator>(std::move(others[rank]), std::move(host[rank]), group));
  }
  return communicators;
}

}  // namespace heddle
