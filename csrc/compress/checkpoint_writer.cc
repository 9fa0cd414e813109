#include "compress/checkpoint_writer.h"

#include <algorithm>

#include "compress/cancellation.h"

namespace heddle {
namespace {

// Values of a strip: with what is read and written beside them they stay in the second cache level.
constexpr int64_t kStripValues = int64_t{64} << 10;
constexpr uint64_t kCopyBytes = uint64_t{4} << 20;

int64_t StripRows(const SourceMatrix& matrix) { return std::max<int64_t>(1, kStripValues / matrix.columns); }

}  // namespace

CheckpointWriter::CheckpointWriter(const SourceCheckpoint& source, const OutputPlan& plan, const std::string& folder,
                                   ThreadPool& threads, const std::atomic<bool>& cancelled)
    : source_(source), plan_(plan), threads_(threads), cancelled_(cancelled) {
  for (size_t s = 0; s < plan.shards().size(); ++s) {
    const std::string path = folder + "/" + source.shards()[s].name;
    writers_.push_back(std::make_unique<SafetensorsWriter>(path, plan.shards()[s].tensors));
  }
}

int64_t CheckpointWriter::ThreadBytes(const SourceMatrix& matrix) {
  // As float32, as it is stored, and as it will be.
  constexpr int64_t kBytesAValue = 12;
  return StripRows(matrix) * matrix.columns * kBytesAValue;
}

template <typename Use>
void CheckpointWriter::ForEachStrip(const SourceMatrix& matrix, const Use& use) {
  threads_.RunPieces(matrix.rows, StripRows(matrix), [&](int, int64_t begin, int64_t end) {
    ThrowIfCancelled(cancelled_);
    use(begin, end);
  });
}

void CheckpointWriter::WriteMatrix(const PlannedMatrix& matrix, const ChangeRows& change) {
  const MatrixOutput output = matrix.Output();
  SafetensorsWriter& writer = *writers_[matrix.source->shard];
  output.WriteShape(writer, matrix.first);
  ForEachStrip(*matrix.source, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>((end - begin) * matrix.source->columns));
    source_.ReadRows(*matrix.source, begin, end, rows.data());
    if (change) change(rows);
    output.WriteRows(writer, matrix.first, begin, rows);
  });
}

void CheckpointWriter::WriteMatrix(const PlannedMatrix& matrix, std::span<const float> values) {
  const MatrixOutput output = matrix.Output();
  SafetensorsWriter& writer = *writers_[matrix.source->shard];
  output.WriteShape(writer, matrix.first);
  const auto columns = static_cast<size_t>(matrix.source->columns);
  ForEachStrip(*matrix.source, [&](int64_t begin, int64_t end) {
    const auto count = static_cast<size_t>(end - begin) * columns;
    output.WriteRows(writer, matrix.first, begin, values.subspan(static_cast<size_t>(begin) * columns, count));
  });
}

void CheckpointWriter::WriteOthers(const std::map<std::string, std::vector<float>>& replaced) {
  for (size_t s = 0; s < writers_.size(); ++s) {
    const PlannedShard& shard = plan_.shards()[s];
    for (size_t i = 0; i < shard.others.size(); ++i) {
      const size_t tensor = shard.first_other() + i;
      const auto found = replaced.find(shard.others[i]->name);
      if (found == replaced.end()) {
        Copy(s, tensor, *shard.others[i]);
        continue;
      }
      const DType dtype = source_.ReadVector(found->first).dtype;
      std::vector<char> stored(found->second.size() * DTypeSize(dtype));
      for (size_t j = 0; j < found->second.size(); ++j) {
        StoreFloat(dtype, stored.data(), static_cast<int64_t>(j), found->second[j]);
      }
      writers_[s]->Write(tensor, 0, stored.data(), stored.size());
    }
  }
}

void CheckpointWriter::Copy(size_t shard, size_t tensor, const SafetensorsTensor& other) {
  const SafetensorsFile& file = *source_.shards()[shard].file;
  const uint64_t size = other.end - other.begin;
  std::vector<char> bytes(static_cast<size_t>(std::min(size, kCopyBytes)));
  for (uint64_t at = 0; at < size; at += kCopyBytes) {
    ThrowIfCancelled(cancelled_);
    const uint64_t count = std::min(kCopyBytes, size - at);
    file.Read(other, at, count, bytes.data());
    writers_[shard]->Write(tensor, at, bytes.data(), static_cast<size_t>(count));
  }
}

void CheckpointWriter::Finish() {
  for (const auto& writer : writers_) {
    ThrowIfCancelled(cancelled_);
    writer->Finish();
  }
}

}  // namespace heddle
