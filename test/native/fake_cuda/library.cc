#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fake_cuda.h"
#include "heddle_cuda.h"

using heddle::test::FakeCuda;
using heddle::test::FakeState;
using heddle::test::kNumFakeDevices;
using Status = HeddleCudaStatus;
using Op = std::function<void()>;

struct HeddleCudaStream {
  int device = 0;
  bool capturing = false;
  std::vector<Op> captured;
  std::deque<Op> late;
  int64_t num_late_before = 0;  // that have run
};

struct HeddleCudaGraph {
  std::vector<Op> ops;
};

struct HeddleCudaEvent {
  int device = 0;
  std::atomic<bool> reached{true};
  HeddleCudaStream* stream = nullptr;
  int64_t num_late_before = 0;  // of the stream's ops
};

struct HeddleCudaCommunicator {
  std::atomic<bool> aborted{false};
};

struct HeddleCudaPeerGroup {
  std::atomic<bool> aborted{false};
};

namespace {

FakeCuda fake;
thread_local std::string last_error;

// What exists of one kind, with its size; also what nobody else knows any more.
class Living {
 public:
  explicit Living(std::atomic<int64_t>& count) : count_(count) {}
  void Add(void* object, int64_t bytes) {
    const std::lock_guard lock(mutex_);
    objects_[object] = bytes;
    count_ = std::ssize(objects_);
  }
  void Remove(void* object) {
    const std::lock_guard lock(mutex_);
    objects_.erase(object);
    count_ = std::ssize(objects_);
  }
  bool Holds(const void* at) {
    const std::lock_guard lock(mutex_);
    auto next = objects_.upper_bound(const_cast<void*>(at));
    if (next == objects_.begin()) return false;
    const auto& [object, bytes] = *--next;
    return at < static_cast<const char*>(object) + bytes;
  }
  int64_t Bytes() {
    const std::lock_guard lock(mutex_);
    int64_t sum = 0;
    for (const auto& [object, bytes] : objects_) sum += bytes;
    return sum;
  }

 private:
  std::atomic<int64_t>& count_;
  std::mutex mutex_;
  std::map<void*, int64_t> objects_;
};
// Never destroyed, so that what is meant to stay is no leak.
Living& streams = *new Living(fake.num_streams);
Living& blocks = *new Living(fake.num_blocks);
Living& pinned_blocks = *new Living(fake.num_pinned_blocks);
Living& communicators = *new Living(fake.num_communicators);
Living& peer_groups = *new Living(fake.num_peer_groups);

Status Fail(Status status, const std::string& message) {
  last_error = message;
  return status;
}

Status Ask(int device) {
  if (fake.devices[static_cast<size_t>(device)].state != FakeState::kLost) return kHeddleCudaOk;
  return Fail(kHeddleCudaSticky, "device " + std::to_string(device) + " is lost");
}

int64_t NumLate(const HeddleCudaStream* stream) { return stream->num_late_before + std::ssize(stream->late); }

// Runs the first of a stream's late ops, so many of all that it ever had.
void CatchUp(HeddleCudaStream* stream, int64_t count) {
  for (; stream->num_late_before < count; ++stream->num_late_before) {
    stream->late.front()();
    stream->late.pop_front();
  }
}
void CatchUp(HeddleCudaStream* stream) { CatchUp(stream, NumLate(stream)); }

// Runs `op`, at once or late, or records it while the stream captures.
Status Launch(HeddleCudaStream* stream, Op op) {
  const Status status = Ask(stream->device);
  if (status != kHeddleCudaOk) return status;
  if (stream->capturing) {
    stream->captured.push_back(std::move(op));
  } else if (fake.is_late) {
    stream->late.push_back(std::move(op));
  } else {
    op();
  }
  return kHeddleCudaOk;
}

// Of a copy, which reads memory that is not page-locked before it returns.
Status LaunchCopy(HeddleCudaStream* stream, const void* from, Op op) {
  const Status status = Launch(stream, std::move(op));
  if (!blocks.Holds(from) && !pinned_blocks.Holds(from)) CatchUp(stream);
  return status;
}

Status DeviceCount(int32_t* count) {
  *count = kNumFakeDevices;
  return kHeddleCudaOk;
}

Status DeviceInfo(int32_t, HeddleCudaDeviceInfo* info) {
  *info = {};
  std::strcpy(info->name, "fake");
  info->total_bytes = info->free_bytes = int64_t{1} << 30;
  return kHeddleCudaOk;
}

Status DeviceCheck(int32_t) {
  return fake.serves_models ? kHeddleCudaOk : Fail(kHeddleCudaUnavailable, "a fake device serves no model");
}

Status BitsAndBytesCheck() {
  return fake.has_bitsandbytes ? kHeddleCudaOk : Fail(kHeddleCudaUnavailable, "a fake device lacks bitsandbytes");
}

Status StreamCreate(int32_t device, int64_t, int64_t, HeddleCudaStream** stream) {
  *stream = new HeddleCudaStream;
  (*stream)->device = device;
  streams.Add(*stream, 0);
  return kHeddleCudaOk;
}

Status StreamDestroy(HeddleCudaStream* stream) {
  CatchUp(stream);
  streams.Remove(stream);
  delete stream;
  return kHeddleCudaOk;
}

Status AllocateIn(Living& living, int device, int64_t bytes, void** memory) {
  const Status status = Ask(device);
  if (status != kHeddleCudaOk) return status;
  *memory = ::operator new(static_cast<size_t>(bytes));
  living.Add(*memory, bytes);
  return kHeddleCudaOk;
}

Status FreeFrom(Living& living, HeddleCudaStream* stream, void* memory) {
  CatchUp(stream);
  living.Remove(memory);
  ::operator delete(memory);
  return kHeddleCudaOk;
}

Status Allocate(HeddleCudaStream* stream, int64_t bytes, void** memory) {
  return AllocateIn(blocks, stream->device, bytes, memory);
}
Status Free(HeddleCudaStream* stream, void* memory) { return FreeFrom(blocks, stream, memory); }

Status AllocateHost(HeddleCudaStream* stream, int64_t bytes, void** memory) {
  return AllocateIn(pinned_blocks, stream->device, bytes, memory);
}
Status FreeHost(HeddleCudaStream* stream, void* memory) { return FreeFrom(pinned_blocks, stream, memory); }

Status AllocatedBytes(HeddleCudaStream*, int64_t* bytes) {
  *bytes = blocks.Bytes();
  return kHeddleCudaOk;
}

Status Copy(HeddleCudaStream* stream, void* to, const void* from, int64_t bytes) {
  return LaunchCopy(stream, from, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}

Status Copy2d(HeddleCudaStream* stream, void* to, int64_t to_stride, const void* from, int64_t from_stride,
              int64_t row_bytes, int64_t num_rows) {
  return LaunchCopy(stream, from, [=] {
    for (int64_t row = 0; row < num_rows; ++row) {
      std::memcpy(static_cast<char*>(to) + row * to_stride, static_cast<const char*>(from) + row * from_stride,
                  static_cast<size_t>(row_bytes));
    }
  });
}

Status Fill(HeddleCudaStream* stream, void* memory, int value, int64_t bytes) {
  return Launch(stream, [=] { std::memset(memory, value, static_cast<size_t>(bytes)); });
}

Status EventCreate(HeddleCudaStream* stream, HeddleCudaEvent** event) {
  *event = new HeddleCudaEvent;
  (*event)->device = stream->device;
  return kHeddleCudaOk;
}

Status EventDestroy(HeddleCudaEvent* event) {
  delete event;
  return kHeddleCudaOk;
}

Status EventRecord(HeddleCudaStream* stream, HeddleCudaEvent* event) {
  event->stream = stream;
  event->num_late_before = NumLate(stream);
  event->reached = fake.devices[static_cast<size_t>(stream->device)].state == FakeState::kRunning;
  return Ask(stream->device);
}

Status EventWait(HeddleCudaEvent* event, int64_t timeout_us) {
  auto& device = fake.devices[static_cast<size_t>(event->device)];
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(timeout_us);
  for (;;) {
    const Status status = Ask(event->device);
    if (status != kHeddleCudaOk) return status;
    if (event->reached || device.state == FakeState::kRunning) {
      if (event->stream != nullptr) CatchUp(event->stream, event->num_late_before);
      return kHeddleCudaOk;
    }
    if (std::chrono::steady_clock::now() >= end) return Fail(kHeddleCudaTimeout, "the event was not reached");
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

Status EventElapsed(HeddleCudaEvent*, HeddleCudaEvent*, double* seconds) {
  *seconds = 0;
  return kHeddleCudaOk;
}

Status CaptureBegin(HeddleCudaStream* stream) {
  stream->capturing = true;
  stream->captured.clear();
  return Ask(stream->device);
}

Status CaptureEnd(HeddleCudaStream* stream, HeddleCudaGraph** graph) {
  stream->capturing = false;
  *graph = new HeddleCudaGraph{std::move(stream->captured)};
  ++fake.num_graphs;
  return Ask(stream->device);
}

Status GraphLaunch(HeddleCudaStream* stream, HeddleCudaGraph* graph) {
  return Launch(stream, [ops = graph->ops] {
    for (const Op& op : ops) op();
  });
}

Status GraphDestroy(HeddleCudaGraph* graph) {
  delete graph;
  --fake.num_graphs;
  return kHeddleCudaOk;
}

Status FillSampled(HeddleCudaStream* stream, int32_t* ids, int64_t num_ids, const int32_t* sampled) {
  return Launch(stream, [=] {
    for (int64_t i = 0; i < num_ids; ++i) ids[i] = ids[i] < 0 ? sampled[-1 - ids[i]] : ids[i];
  });
}

Status Sample(HeddleCudaStream* stream, const HeddleCudaSample* given) {
  return Launch(stream, [op = *given] {
    for (int64_t row = 0; row < op.logits.num_rows; ++row) {
      const auto* const logits = static_cast<const float*>(op.logits.data) + row * op.logits.stride;
      const HeddleCudaSampleRow& rule = op.rows[row];
      const auto token = static_cast<int32_t>(
          rule.temperature > 0 ? static_cast<int64_t>(rule.seed % static_cast<uint64_t>(op.logits.size))
                               : std::max_element(logits, logits + op.logits.size) - logits);
      op.token_ids[row] = token;
      op.sampled[row] = {.token_id = token, .logprob = logits[token], .rank = 0, .failure = kHeddleCudaSampled};
    }
  });
}

Status NcclVersion(int32_t* version) {
  *version = 23000;
  return kHeddleCudaOk;
}

Status CommUniqueId(char[128]) { return kHeddleCudaOk; }

// Of a communicator or a group of peers.
template <typename Group>
Status DestroyGroup(Living& groups, Group* group) {
  groups.Remove(group);
  delete group;
  return kHeddleCudaOk;
}

template <typename Group>
Status AbortGroup(Group* group) {
  group->aborted = true;
  return kHeddleCudaOk;
}

Status CommCreate(HeddleCudaStream*, const char[128], int32_t, int32_t, const HeddleCudaNcclOptions*, int64_t,
                  HeddleCudaCommunicator** comm) {
  *comm = new HeddleCudaCommunicator;
  communicators.Add(*comm, 0);
  return kHeddleCudaOk;
}

Status CommConnect(HeddleCudaCommunicator*) { return kHeddleCudaOk; }

// Does not know whose device it was, as little as NCCL does.
Status CommAsyncError(HeddleCudaCommunicator* comm) {
  if (comm->aborted) return Fail(kHeddleCudaAborted, "the communicator was aborted");
  for (const auto& device : fake.devices) {
    if (device.state == FakeState::kLost) return Fail(kHeddleCudaFailed, "a peer was lost");
  }
  return kHeddleCudaOk;
}

Status AllReduceSum(HeddleCudaStream*, HeddleCudaCommunicator*, HeddleCudaMatrix) { return kHeddleCudaOk; }

Status Broadcast(HeddleCudaStream*, HeddleCudaCommunicator*, int32_t, void*, int64_t) { return kHeddleCudaOk; }

Status PeerGroupCreate(HeddleCudaStream* const*, int32_t, int64_t, int64_t, HeddleCudaPeerGroup** group) {
  *group = new HeddleCudaPeerGroup;
  peer_groups.Add(*group, 0);
  return kHeddleCudaOk;
}

Status PeerGroupAsyncError(HeddleCudaPeerGroup* group) {
  return group->aborted ? Fail(kHeddleCudaAborted, "the group of peers was aborted") : kHeddleCudaOk;
}

Status OneShotAllReduceSum(HeddleCudaStream*, HeddleCudaPeerGroup*, int32_t, HeddleCudaMatrix) { return kHeddleCudaOk; }

const HeddleCudaApi kTable = [] {
  HeddleCudaApi api{};
  api.last_error = [] { return last_error.c_str(); };
  api.device_count = DeviceCount;
  api.device_info = DeviceInfo;
  api.device_check = DeviceCheck;
  api.bitsandbytes_check = BitsAndBytesCheck;
  api.stream_create = StreamCreate;
  api.stream_destroy = StreamDestroy;
  api.allocate = Allocate;
  api.free = Free;
  api.allocated_bytes = AllocatedBytes;
  api.allocate_host = AllocateHost;
  api.free_host = FreeHost;
  api.copy = Copy;
  api.copy_2d = Copy2d;
  api.fill = Fill;
  api.event_create = EventCreate;
  api.event_destroy = EventDestroy;
  api.event_record = EventRecord;
  api.event_wait = EventWait;
  api.event_elapsed = EventElapsed;
  api.capture_begin = CaptureBegin;
  api.capture_end = CaptureEnd;
  api.graph_launch = GraphLaunch;
  api.graph_destroy = GraphDestroy;
  api.fill_sampled = FillSampled;
  api.sample = Sample;
  api.nccl_version = NcclVersion;
  api.comm_unique_id = CommUniqueId;
  api.comm_create = CommCreate;
  api.comm_connect = CommConnect;
  api.comm_destroy = [](HeddleCudaCommunicator* comm) { return DestroyGroup(communicators, comm); };
  api.comm_abort = AbortGroup;
  api.comm_async_error = CommAsyncError;
  api.all_reduce_sum = AllReduceSum;
  api.broadcast = Broadcast;
  api.peer_group_create = PeerGroupCreate;
  api.peer_group_destroy = [](HeddleCudaPeerGroup* group) { return DestroyGroup(peer_groups, group); };
  api.peer_group_abort = AbortGroup;
  api.peer_group_async_error = PeerGroupAsyncError;
  api.one_shot_all_reduce_sum = OneShotAllReduceSum;
  return api;
}();

}  // namespace

extern "C" {

__attribute__((visibility("default"))) const HeddleCudaApi* HeddleCudaGetApi(int32_t version) {
  return version == HEDDLE_CUDA_API_VERSION ? &kTable : nullptr;
}

__attribute__((visibility("default"))) FakeCuda* HeddleFakeCuda() { return &fake; }
}
