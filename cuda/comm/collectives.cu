// The collectives that are more than one call of NCCL's, and their kernel.
#include <algorithm>
#include <cstdint>
#include <numeric>

#include "comm/communicator.h"
#include "common/checks.h"
#include "common/launch.h"

namespace heddle::cuda {
namespace {

constexpr int kMaxSources = 8;
constexpr int kThreads = 256;
constexpr int64_t kColumnsPerBlock = 4 * kThreads;
constexpr int64_t kMaxRowBlocks = 1024;

// What root receives at a time, of all ranks together: part after part of the rows, so that scratch memory has a bound.
// Every rank must come to the same parts.
constexpr int64_t kPartBytes = int64_t{16} << 20;

// Columns [begin, begin + columns) of `out` come from rows that begin `stride` elements apart.
struct ColumnSource {
  const void* data;
  int64_t stride;
  int64_t begin;
  int64_t columns;
};

struct ColumnSources {
  ColumnSource sources[kMaxSources];
};

// One source a layer of the grid. Elements one by one: where ranks' columns begin is any number.
template <typename Element>
__global__ void __launch_bounds__(kThreads) PlaceColumnsKernel(const __grid_constant__ ColumnSources sources,
                                                               Element* out, int64_t out_stride, int64_t num_rows) {
  AllowNext();
  WaitForPrevious();
  const ColumnSource& source = sources.sources[blockIdx.z];
  const auto* data = static_cast<const Element*>(source.data);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t row = blockIdx.y; row < num_rows; row += gridDim.y) {
    const Element* from = data + row * source.stride;
    Element* to = out + row * out_stride + source.begin;
    for (int64_t column = first; column < source.columns; column += step) to[column] = from[column];
  }
}

ncclDataType_t NcclTypeOf(HeddleCudaDType dtype) {
  switch (dtype) {
    case kHeddleCudaFloat32:
      return ncclFloat32;
    case kHeddleCudaFloat16:
      return ncclFloat16;
    case kHeddleCudaBFloat16:
      return ncclBfloat16;
    case kHeddleCudaInt8:
      break;
  }
  Fail(kHeddleCudaInvalid, "a dtype that is none");
}

bool HasGaps(const HeddleCudaMatrix& x) { return x.num_rows > 1 && x.stride != x.size; }

void PlaceColumns(const HeddleCudaStream& stream, const ColumnSources& sources, int num_sources, int64_t element_bytes,
                  void* out, int64_t out_stride, int64_t num_rows) {
  int64_t widest = 0;
  for (int i = 0; i < num_sources; ++i) widest = std::max(widest, sources.sources[i].columns);
  if (widest == 0) return;
  const dim3 grid(static_cast<unsigned>((widest + kColumnsPerBlock - 1) / kColumnsPerBlock),
                  static_cast<unsigned>(std::min(num_rows, kMaxRowBlocks)), static_cast<unsigned>(num_sources));
  if (element_bytes == 4) {
    Launch(stream, PlaceColumnsKernel<uint32_t>, grid, dim3(kThreads), 0, sources, static_cast<uint32_t*>(out),
           out_stride, num_rows);
  } else {
    Launch(stream, PlaceColumnsKernel<uint16_t>, grid, dim3(kThreads), 0, sources, static_cast<uint16_t*>(out),
           out_stride, num_rows);
  }
}

// One part of the rows of a gather.
class GatherPart {
 public:
  GatherPart(HeddleCudaStream& stream, HeddleCudaCommunicator& comm, const HeddleCudaGatherColumns& op, int64_t begin,
             int64_t num_rows)
      : stream_(stream), comm_(comm), op_(op), bytes_(SizeOf(op.x.dtype)), num_rows_(num_rows) {
    const int64_t skipped = begin * bytes_;
    x_ = static_cast<const char*>(op.x.data) + skipped * op.x.stride;
    out_ = comm.rank() == op.root ? static_cast<char*>(op.out.data) + skipped * op.out.stride : nullptr;
  }

  void Send() const {
    if (op_.x.size == 0) return;
    const void* data = x_;
    if (num_rows_ > 1 && HasGaps(op_.x)) {
      void* packed = stream_.Scratch(num_rows_ * op_.x.size * bytes_);
      PlaceColumns(stream_, {{{x_, op_.x.stride, 0, op_.x.size}}}, 1, bytes_, packed, op_.x.size, num_rows_);
      data = packed;
    }
    comm_.Run(stream_, kName, [&](const NcclLibrary& nccl, ncclComm_t comm) {
      return nccl.send(data, Count(op_.x.size), NcclTypeOf(op_.x.dtype), op_.root, comm, stream_.stream);
    });
  }

  // A single row's columns go where they belong at once, those of several rows by way of scratch memory.
  void Receive() const {
    const int64_t foreign = op_.out.size - op_.x.size;
    char* scratch = nullptr;
    if (num_rows_ > 1) {
      scratch = static_cast<char*>(stream_.Scratch(num_rows_ * foreign * bytes_));
    }
    ColumnSources sources{};
    int num_sources = 0;
    char* received[kMaxSources] = {};
    int64_t column = 0;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      const int64_t columns = op_.columns[rank];
      if (rank == op_.root) {
        sources.sources[num_sources++] = {x_, op_.x.stride, column, columns};
      } else if (scratch == nullptr) {
        received[rank] = out_ + column * bytes_;
      } else {
        received[rank] = scratch;
        sources.sources[num_sources++] = {scratch, columns, column, columns};
        scratch += num_rows_ * columns * bytes_;
      }
      column += columns;
    }
    if (foreign > 0) ReceiveInto(received);
    PlaceColumns(stream_, sources, num_sources, bytes_, out_, op_.out.stride, num_rows_);
  }

 private:
  static constexpr const char* kName = "gather_columns";

  void ReceiveInto(char* const* received) const {
    comm_.Run(stream_, kName, [&](const NcclLibrary& nccl, ncclComm_t comm) {
      ncclResult_t first = nccl.group_start();
      const auto note = [&](ncclResult_t result) {
        if (first == ncclSuccess || first == ncclInProgress) first = result;
      };
      for (int rank = 0; rank < comm_.size(); ++rank) {
        if (rank == op_.root || op_.columns[rank] == 0) continue;
        note(nccl.recv(received[rank], Count(op_.columns[rank]), NcclTypeOf(op_.x.dtype), rank, comm, stream_.stream));
      }
      note(nccl.group_end());
      return first;
    });
  }

  size_t Count(int64_t columns) const { return static_cast<size_t>(num_rows_ * columns); }

  HeddleCudaStream& stream_;
  HeddleCudaCommunicator& comm_;
  const HeddleCudaGatherColumns& op_;
  const int64_t bytes_;  // of an element
  const int64_t num_rows_;
  const char* x_;
  char* out_;
};

}  // namespace

void AllReduceSum(HeddleCudaStream& stream, HeddleCudaCommunicator& comm, const HeddleCudaMatrix& x) {
  CheckMatrix(x, "all_reduce_sum: x");
  Require(!HasGaps(x), "all_reduce_sum: x has gaps between rows");
  if (IsEmpty(x)) return;
  const ncclDataType_t type = NcclTypeOf(x.dtype);
  comm.Run(stream, "all_reduce_sum", [&](const NcclLibrary& nccl, ncclComm_t nccl_comm) {
    return nccl.all_reduce(x.data, x.data, static_cast<size_t>(x.num_rows * x.size), type, ncclSum, nccl_comm,
                           stream.stream);
  });
}

void GatherColumns(HeddleCudaStream& stream, HeddleCudaCommunicator& comm, const HeddleCudaGatherColumns& op) {
  const bool is_root = comm.rank() == op.root;
  CheckMatrix(op.x, "gather_columns: x");
  if (is_root) CheckMatrix(op.out, "gather_columns: out");
  Require(op.root >= 0 && op.root < comm.size(), "gather_columns: no such root");
  Require(op.columns != nullptr, "gather_columns: no columns");
  Require(std::all_of(op.columns, op.columns + comm.size(), [](int64_t columns) { return columns >= 0; }),
          "gather_columns: a negative number of columns");
  Require(op.x.size == op.columns[comm.rank()], "gather_columns: x has not this rank's columns");
  const int64_t all_columns = std::accumulate(op.columns, op.columns + comm.size(), int64_t{0});
  Require(!is_root || (op.out.dtype == op.x.dtype && op.out.num_rows == op.x.num_rows && op.out.size == all_columns),
          "gather_columns: out is not of the shape and type of all ranks' x");
  const int64_t row_bytes = all_columns * SizeOf(op.x.dtype);
  if (row_bytes == 0) return;

  const int64_t part_rows = std::max<int64_t>(1, kPartBytes / row_bytes);
  // More than any rank needs, so that all of them refuse, or none: a lone one would leave its peers waiting.
  if (op.x.num_rows > 1 && part_rows > 1) stream.Scratch(std::min(part_rows, op.x.num_rows) * row_bytes);
  for (int64_t begin = 0; begin < op.x.num_rows; begin += part_rows) {
    const GatherPart part(stream, comm, op, begin, std::min(part_rows, op.x.num_rows - begin));
    if (is_root) {
      part.Receive();
    } else {
      part.Send();
    }
  }
}

void Broadcast(HeddleCudaStream& stream, HeddleCudaCommunicator& comm, int32_t root, void* data, int64_t bytes) {
  Require(root >= 0 && root < comm.size(), "broadcast: no such root");
  Require(bytes >= 0, "broadcast: a negative number of bytes");
  if (bytes == 0) return;
  Require(data != nullptr, "broadcast: no data");
  comm.Run(stream, "broadcast", [&](const NcclLibrary& nccl, ncclComm_t nccl_comm) {
    return nccl.broadcast(data, data, static_cast<size_t>(bytes), ncclUint8, root, nccl_comm, stream.stream);
  });
}

}  // namespace heddle::cuda
