// The table behind HeddleCudaGetApi: every entry catches what its function throws, and acts on the stream's device.
#include "comm/communicator.h"
#include "comm/nccl_environment.h"
#include "comm/one_shot_all_reduce.h"
#include "common/device.h"
#include "common/event.h"
#include "common/graph.h"
#include "common/memory.h"
#include "common/ops.h"
#include "common/sampling.h"
#include "gemm/cublaslt.h"
#include "quant/bitsandbytes_library.h"

namespace heddle::cuda::api {
namespace {

using Status = HeddleCudaStatus;
using Stream = HeddleCudaStream;
using Event = HeddleCudaEvent;
using Graph = HeddleCudaGraph;
using Communicator = HeddleCudaCommunicator;
using PeerGroup = HeddleCudaPeerGroup;

// Runs body(*stream) for a function of the table.
template <typename Body>
Status OnStream(Stream* stream, const Body& body) noexcept {
  const Status status = Guard([&] {
    Require(stream != nullptr, "the stream is null");
    SetDevice(stream->properties.device);
    body(*stream);
  });
  // Also calls that CUDA never saw: a graph without them would be another program than the one that was recorded.
  if (status != kHeddleCudaOk && stream != nullptr && stream->capturing) stream->capture_spoiled = true;
  return status;
}

template <typename T>
T& Deref(T* pointer) {
  Require(pointer != nullptr, "an argument is null");
  return *pointer;
}

// *result = make(), which is not called when there is no place for what it makes.
template <typename T, typename Make>
void Give(T* result, const Make& make) {
  T& place = Deref(result);
  place = make();
}

template <typename Op, void (*kRun)(Stream&, const Op&)>
Status RunOp(Stream* stream, const Op* op) noexcept {
  return OnStream(stream, [&](Stream& on) { kRun(on, Deref(op)); });
}

Status DeviceCount(int32_t* count) noexcept {
  return Guard([&] { Give(count, [] { return cuda::DeviceCount(); }); });
}

Status DeviceInfo(int32_t device, HeddleCudaDeviceInfo* info) noexcept {
  return Guard([&] { Give(info, [&] { return cuda::DeviceInfo(device); }); });
}

Status DeviceCheck(int32_t device) noexcept {
  return Guard([&] {
    PropertiesOf(device);
    CublasLt();
  });
}

Status BitsAndBytesCheck() noexcept {
  return Guard([] { BitsAndBytes(); });
}

Status StreamCreate(int32_t device, int64_t workspace_bytes, int64_t timeout_us, Stream** stream) noexcept {
  return Guard([&] {
    Give(stream, [&] { return CreateStream(device, workspace_bytes, std::chrono::microseconds(timeout_us)); });
  });
}

Status StreamDestroy(Stream* stream) noexcept {
  return Guard([&] { DestroyStream(stream); });
}

Status StreamSynchronize(Stream* stream) noexcept {
  return OnStream(stream, [](Stream& on) { SynchronizeStream(on); });
}

Status Allocate(Stream* stream, int64_t bytes, void** memory) noexcept {
  return OnStream(stream, [&](Stream& on) { Give(memory, [&] { return cuda::Allocate(on, bytes); }); });
}

Status Free(Stream* stream, void* memory) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::Free(on, memory); });
}

Status AllocatedBytes(Stream* stream, int64_t* bytes) noexcept {
  return OnStream(stream, [&](Stream& on) { Give(bytes, [&] { return cuda::AllocatedBytes(on); }); });
}

Status AllocateHost(Stream* stream, int64_t bytes, void** memory) noexcept {
  return OnStream(stream, [&](Stream&) { Give(memory, [&] { return cuda::AllocateHost(bytes); }); });
}

Status FreeHost(Stream* stream, void* memory) noexcept {
  return OnStream(stream, [&](Stream&) { cuda::FreeHost(memory); });
}

Status Copy(Stream* stream, void* to, const void* from, int64_t bytes) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::Copy(on, to, from, bytes); });
}

Status Copy2d(Stream* stream, void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t row_bytes,
              int64_t num_rows) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::Copy2d(on, to, to_stride, from, from_stride, row_bytes, num_rows); });
}

Status Fill(Stream* stream, void* memory, int value, int64_t bytes) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::Fill(on, memory, value, bytes); });
}

Status FillRandom(Stream* stream, HeddleCudaMatrix y, uint64_t seed, float deviation) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::FillRandom(on, y, seed, deviation); });
}

Status EventCreate(Stream* stream, Event** event) noexcept {
  return OnStream(stream, [&](Stream& on) { Give(event, [&] { return CreateEvent(on); }); });
}

Status EventDestroy(Event* event) noexcept {
  return Guard([&] { DestroyEvent(event); });
}

Status EventRecord(Stream* stream, Event* event) noexcept {
  return OnStream(stream, [&](Stream& on) { RecordEvent(on, Deref(event)); });
}

Status EventWait(Event* event, int64_t timeout_us) noexcept {
  return Guard([&] { WaitForEvent(Deref(event), timeout_us); });
}

Status EventElapsed(Event* from, Event* to, double* seconds) noexcept {
  return Guard([&] { Give(seconds, [&] { return SecondsBetween(Deref(from), Deref(to)); }); });
}

Status CaptureBegin(Stream* stream) noexcept {
  return OnStream(stream, [](Stream& on) { BeginCapture(on); });
}

Status CaptureEnd(Stream* stream, Graph** graph) noexcept {
  return OnStream(stream, [&](Stream& on) { Give(graph, [&] { return EndCapture(on); }); });
}

Status GraphLaunch(Stream* stream, Graph* graph) noexcept {
  return OnStream(stream, [&](Stream& on) { LaunchGraph(on, Deref(graph)); });
}

Status GraphDestroy(Graph* graph) noexcept {
  return Guard([&] { DestroyGraph(graph); });
}

Status NcclVersion(int32_t* version) noexcept {
  return Guard([&] { Give(version, [] { return Nccl().version; }); });
}

Status CommUniqueId(char id[NCCL_UNIQUE_ID_BYTES]) noexcept {
  return Guard([&] { GetUniqueId(&Deref(id)); });
}

Status NcclVariable(const char* name, const char** value) noexcept {
  return Guard([&] { Give(value, [&] { return NcclEnvironment(&Deref(name)); }); });
}

Status CommCreate(Stream* stream, const char id[NCCL_UNIQUE_ID_BYTES], int32_t size, int32_t rank,
                  const HeddleCudaNcclOptions* options, int64_t timeout_us, Communicator** comm) noexcept {
  return OnStream(stream, [&](Stream& on) {
    Give(comm, [&] {
      return new Communicator(on, &Deref(id), size, rank, Deref(options), std::chrono::microseconds(timeout_us));
    });
  });
}

Status CommConnect(Communicator* comm) noexcept {
  return Guard([&] { Deref(comm).Connect(); });
}

Status CommDestroy(Communicator* comm) noexcept {
  return Guard([&] { DestroyCommunicator(comm); });
}

Status CommAbort(Communicator* comm) noexcept {
  return Guard([&] { Deref(comm).Abort(); });
}

Status CommAsyncError(Communicator* comm) noexcept {
  return Guard([&] { Deref(comm).CheckAlive(); });
}

Status Barrier(Stream* stream, Communicator* comm) noexcept {
  return OnStream(stream, [&](Stream& on) { Deref(comm).Barrier(on); });
}

Status CommExchange(Stream* stream, Communicator* comm, int64_t value, int64_t* values) noexcept {
  return OnStream(stream, [&](Stream& on) { Deref(comm).Exchange(on, value, &Deref(values)); });
}

Status AllReduceSum(Stream* stream, Communicator* comm, HeddleCudaMatrix x) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::AllReduceSum(on, Deref(comm), x); });
}

Status GatherColumns(Stream* stream, Communicator* comm, const HeddleCudaGatherColumns* op) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::GatherColumns(on, Deref(comm), Deref(op)); });
}

Status Broadcast(Stream* stream, Communicator* comm, int32_t root, void* data, int64_t bytes) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::Broadcast(on, Deref(comm), root, data, bytes); });
}

Status FillSampled(Stream* stream, int32_t* ids, int64_t num_ids, const int32_t* sampled) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::FillSampled(on, ids, num_ids, sampled); });
}

Status PeerGroupCreate(Stream* const* streams, int32_t size, int64_t max_bytes, int64_t timeout_us,
                       PeerGroup** group) noexcept {
  return Guard([&] {
    Give(group, [&] { return new PeerGroup(&Deref(streams), size, max_bytes, std::chrono::microseconds(timeout_us)); });
  });
}

Status PeerGroupDestroy(PeerGroup* group) noexcept {
  return Guard([&] { delete group; });
}

Status PeerGroupAbort(PeerGroup* group) noexcept {
  return Guard([&] { Deref(group).Abort(); });
}

Status PeerGroupAsyncError(PeerGroup* group) noexcept {
  return Guard([&] { Deref(group).CheckAlive(); });
}

Status OneShotAllReduceSum(Stream* stream, PeerGroup* group, int32_t rank, HeddleCudaMatrix x) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::OneShotAllReduceSum(on, Deref(group), rank, x); });
}

Status OneShotAllReduceAddRmsNorm(Stream* stream, PeerGroup* group, int32_t rank,
                                  const HeddleCudaAddRmsNorm* op) noexcept {
  return OnStream(stream, [&](Stream& on) { cuda::OneShotAllReduceAddRmsNorm(on, Deref(group), rank, Deref(op)); });
}

constexpr HeddleCudaApi kTable = {
    .last_error = LastError,
    .device_count = DeviceCount,
    .device_info = DeviceInfo,
    .device_check = DeviceCheck,
    .bitsandbytes_check = BitsAndBytesCheck,
    .stream_create = StreamCreate,
    .stream_destroy = StreamDestroy,
    .stream_synchronize = StreamSynchronize,
    .allocate = Allocate,
    .free = Free,
    .allocated_bytes = AllocatedBytes,
    .allocate_host = AllocateHost,
    .free_host = FreeHost,
    .copy = Copy,
    .copy_2d = Copy2d,
    .fill = Fill,
    .fill_random = FillRandom,
    .event_create = EventCreate,
    .event_destroy = EventDestroy,
    .event_record = EventRecord,
    .event_wait = EventWait,
    .event_elapsed = EventElapsed,
    .capture_begin = CaptureBegin,
    .capture_end = CaptureEnd,
    .graph_launch = GraphLaunch,
    .graph_destroy = GraphDestroy,
    .embedding = RunOp<HeddleCudaEmbedding, Embedding>,
    .fill_sampled = FillSampled,
    .rms_norm = RunOp<HeddleCudaRmsNorm, RmsNorm>,
    .add_rms_norm = RunOp<HeddleCudaAddRmsNorm, AddRmsNorm>,
    .add_bias = RunOp<HeddleCudaAddBias, AddBias>,
    .matmul = RunOp<HeddleCudaMatmul, Matmul>,
    .gated_matmul = RunOp<HeddleCudaGatedMatmul, GatedMatmul>,
    .soft_cap = RunOp<HeddleCudaSoftCap, SoftCap>,
    .gather_rows = RunOp<HeddleCudaGatherRows, GatherRows>,
    .rotate_and_store = RunOp<HeddleCudaRotateAndStore, RotateAndStore>,
    .paged_attention = RunOp<HeddleCudaPagedAttention, PagedAttention>,
    .nccl_version = NcclVersion,
    .comm_unique_id = CommUniqueId,
    .nccl_environment = NcclVariable,
    .comm_create = CommCreate,
    .comm_connect = CommConnect,
    .comm_destroy = CommDestroy,
    .comm_abort = CommAbort,
    .comm_async_error = CommAsyncError,
    .barrier = Barrier,
    .comm_exchange = CommExchange,
    .all_reduce_sum = AllReduceSum,
    .gather_columns = GatherColumns,
    .broadcast = Broadcast,
    .peer_group_create = PeerGroupCreate,
    .peer_group_destroy = PeerGroupDestroy,
    .peer_group_abort = PeerGroupAbort,
    .peer_group_async_error = PeerGroupAsyncError,
    .one_shot_all_reduce_sum = OneShotAllReduceSum,
    .one_shot_all_reduce_add_rms_norm = OneShotAllReduceAddRmsNorm,
    .sample = RunOp<HeddleCudaSample, Sample>,
};

}  // namespace
}  // namespace heddle::cuda::api

extern "C" __attribute__((visibility("default"))) const HeddleCudaApi* HeddleCudaGetApi(int32_t version) {
  return version == HEDDLE_CUDA_API_VERSION ? &heddle::cuda::api::kTable : nullptr;
}
