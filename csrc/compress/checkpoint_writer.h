// Writes the files of a smaller checkpoint, in strips of rows on all threads of a pool: of each thread only what
// becomes of one strip is in memory.
//
// One thread, with those of the pool. Everything fails as SafetensorsWriter and SourceCheckpoint do, and with
// kCancelled between two strips. All that is given outlives this.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/output_plan.h"
#include "device/thread_pool.h"

namespace heddle {

class CheckpointWriter {
 public:
  // What becomes of a matrix's rows between file and file: [n, columns] f32, in place. Any thread.
  using ChangeRows = std::function<void(std::span<float> rows)>;

  // Claims the room of all files in `folder`.
  CheckpointWriter(const SourceCheckpoint& source, const OutputPlan& plan, const std::string& folder,
                   ThreadPool& threads, const std::atomic<bool>& cancelled);

  void WriteMatrix(const PlannedMatrix& matrix, const ChangeRows& change);
  // From values [rows, columns] in memory.
  void WriteMatrix(const PlannedMatrix& matrix, std::span<const float> values);

  // Everything beside matrices: as it is, but for vectors that are in `replaced`.
  void WriteOthers(const std::map<std::string, std::vector<float>>& replaced);

  // Brings all to the disk.
  void Finish();

  // Memory of each thread while it works on a matrix.
  static int64_t ThreadBytes(const SourceMatrix& matrix);

 private:
  template <typename Use>
  void ForEachStrip(const SourceMatrix& matrix, const Use& use);
  void Copy(size_t shard, size_t tensor, const SafetensorsTensor& other);

  const SourceCheckpoint& source_;
  const OutputPlan& plan_;
  ThreadPool& threads_;
  const std::atomic<bool>& cancelled_;
  std::vector<std::unique_ptr<SafetensorsWriter>> writers_;  // one a shard
};

}  // namespace heddle
