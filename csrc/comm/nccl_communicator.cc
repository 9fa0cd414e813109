#include "comm/nccl_communicator.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "comm/abortable.h"
#include "comm/local_communicator.h"
#include "device/stream.h"
#include "heddle_cuda.h"
#include "tensor/cuda_matrix.h"

namespace heddle {
namespace {

using UniqueId = std::array<char, 128>;

class NcclCommunicator : public Communicator {
 public:
  // `host` joins the ranks' threads, where some share a device; else it is null.
  NcclCommunicator(const UniqueId& id, int rank, int size, int ranks_on_device, std::unique_ptr<Communicator> host,
                   const NcclOptions& options, std::chrono::milliseconds timeout)
      : id_(id),
        rank_(rank),
        size_(size),
        ranks_on_device_(ranks_on_device),
        host_(std::move(host)),
        options_(options),
        timeout_(timeout) {}

  ~NcclCommunicator() override {
    if (stream_ != nullptr && stream_->is_abandoned()) comm_.Abandon();
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void Connect(Stream& stream) override {
    stream_ = stream.cuda();
    HEDDLE_CHECK(stream_ != nullptr, "NCCL needs a GPU's stream");
    const HeddleCudaNcclOptions options = CudaOptions();
    const auto timeout_us = std::chrono::microseconds(timeout_).count();
    HeddleCudaCommunicator* comm = nullptr;
    CheckCuda(CudaApi().comm_create(stream_->get(), id_.data(), size_, rank_, &options, timeout_us, &comm));
    comm_.Adopt(comm);
    comm_.Check(CudaApi().comm_connect(comm));
  }

  void AllReduceSum(const TensorView& x) override {
    Launch([&] { return CudaApi().all_reduce_sum(stream_->get(), comm_.get(), CudaMatrixOf(x)); });
  }

  void GatherColumns(const TensorView& x, int root, const TensorView& out) override {
    const HeddleCudaGatherColumns op{.x = CudaMatrixOf(x),
                                     .root = root,
                                     .columns = ColumnsOf(x.dim(1)).data(),
                                     .out = rank_ == root ? CudaMatrixOf(out) : HeddleCudaMatrix{}};
    Launch([&] { return CudaApi().gather_columns(stream_->get(), comm_.get(), &op); });
  }

  void Broadcast(const TensorView& x, int root) override {
    const auto bytes = static_cast<int64_t>(x.shape.NumElements() * DTypeSize(x.dtype));
    Launch([&] { return CudaApi().broadcast(stream_->get(), comm_.get(), root, x.data, bytes); });
  }

  void Barrier() override {
    Launch([&] { return CudaApi().barrier(stream_->get(), comm_.get()); });
  }

  void Quiesce() override {
    if (host_ == nullptr) return;
    stream_->Synchronize();
    host_->Barrier();
  }

  void CheckHealth() override {
    if (comm_.get() != nullptr) comm_.Check(CudaApi().comm_async_error(comm_.get()));
  }

  void Abort(ErrorCode code) override {
    if (host_ != nullptr) host_->Abort(code);
    comm_.Abort(code);
  }

 private:
  HeddleCudaNcclOptions CudaOptions() const {
    const auto name = [](const std::string& text) { return text.empty() ? nullptr : text.c_str(); };
    return {.ranks_on_device = ranks_on_device_,
            .min_ctas = options_.min_ctas,
            .max_ctas = options_.max_ctas,
            .cga_cluster_size = options_.cga_cluster_size,
            .nvls_ctas = options_.nvls_ctas,
            .cta_policy = options_.cta_policy,
            .collnet_enable = options_.collnet_enable,
            .traffic_class = options_.traffic_class,
            .channels_per_net_peer = options_.channels_per_net_peer,
            .nvlink_centric_scheduling = options_.nvlink_centric_scheduling,
            .net_name = name(options_.net_name),
            .comm_name = name(options_.comm_name)};
  }

  // What the driver does for the first time (loading a kernel, taking memory) may wait until nothing runs on the
  // device, and so for a collective that waits for that very rank. Where ranks share a device a collective therefore
  // has it for itself; but not in a graph, whose replay does nothing for the first time.
  template <typename Collective>
  void Launch(const Collective& collective) {
    if (host_ == nullptr || stream_->is_capturing()) return comm_.Check(collective());
    Quiesce();
    comm_.Check(collective());
    stream_->Synchronize();
  }

  // Ranks ask each other once for every width.
  const std::vector<int64_t>& ColumnsOf(int64_t own) {
    std::vector<int64_t>& columns = columns_[own];
    if (columns.empty()) {
      columns.resize(static_cast<size_t>(size_));
      Launch([&] { return CudaApi().comm_exchange(stream_->get(), comm_.get(), own, columns.data()); });
    }
    return columns;
  }

  const UniqueId id_;
  const int rank_;
  const int size_;
  const int ranks_on_device_;
  const std::unique_ptr<Communicator> host_;
  const NcclOptions options_;
  const std::chrono::milliseconds timeout_;
  CudaStream* stream_ = nullptr;
  std::map<int64_t, std::vector<int64_t>> columns_;
  Abortable<HeddleCudaCommunicator, &HeddleCudaApi::comm_abort, &HeddleCudaApi::comm_destroy> comm_;
};

// A variable that NCCL did not find when it looked would be an option that is ignored.
void CheckEnvironment(const std::map<std::string, std::string>& environment) {
  for (const auto& [name, value] : environment) {
    const char* seen = nullptr;
    CheckCuda(CudaApi().nccl_environment(name.c_str(), &seen));
    if (seen != nullptr && value == seen) continue;
    std::string message = "parallel.nccl needs ";
    message.append(name).append("=").append(value).append(" in the environment, but this process first used NCCL ");
    message.append(seen == nullptr ? "without " : "with ").append(name);
    if (seen != nullptr) message.append("=").append(seen);
    throw Error(ErrorCode::kInvalidArgument, message);
  }
}

}  // namespace

std::vector<std::unique_ptr<Communicator>> CreateNcclGroup(const std::vector<int32_t>& devices,
                                                           const NcclOptions& options,
                                                           std::chrono::milliseconds timeout) {
  UniqueId id{};
  CheckCuda(CudaApi().comm_unique_id(id.data()));
  CheckEnvironment(options.environment);
  std::vector<std::unique_ptr<Communicator>> group;
  const auto size = static_cast<int>(devices.size());
  const bool shares = std::set<int32_t>(devices.begin(), devices.end()).size() < devices.size();
  std::vector<std::unique_ptr<Communicator>> host(devices.size());
  if (shares) host = CreateLocalGroup(size, timeout, false);
  for (int rank = 0; rank < size; ++rank) {
    const auto index = static_cast<size_t>(rank);
    const auto num_sharing = static_cast<int>(std::count(devices.begin(), devices.end(), devices[index]));
    group.push_back(
        std::make_unique<NcclCommunicator>(id, rank, size, num_sharing, std::move(host[index]), options, timeout));
  }
  return group;
}

}  // namespace heddle
