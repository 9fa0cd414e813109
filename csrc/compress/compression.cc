#include "compress/compression.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/rounding.h"
#include "compress/compression_run.h"
#include "compress/output_folder.h"
#include "compress/output_plan.h"
#include "device/host_memory.h"

namespace heddle {
namespace {

constexpr size_t kMaxSmallFile = size_t{256} << 20;

std::string Mebibytes(uint64_t bytes) {
  return std::to_string(CeilDiv(static_cast<int64_t>(bytes), int64_t{1} << 20)) + " MiB";
}

// Files of weights, those of other formats included and so whatever is large, are not what a new checkpoint takes over,
// nor are the files that it has anew.
bool IsSmallFile(const std::filesystem::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  if (!entry.is_regular_file() || name.starts_with(".") || name == "config.json") return false;
  if (entry.file_size() > kMaxSmallFile) return false;
  const std::string extension = entry.path().extension().string();
  for (const char* weights : {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}) {
    if (extension == weights) return false;
  }
  return !name.ends_with(".index.json");
}

std::vector<std::string> SmallFiles(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (IsSmallFile(entry)) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void CheckRoom(const OutputFolder& folder, uint64_t bytes) {
  const uint64_t available = folder.available_bytes();
  if (bytes <= available) return;
  throw Error(ErrorCode::kInvalidArgument,
              "output needs " + Mebibytes(bytes) + ", but only " + Mebibytes(available) + " are free on its disk");
}

}  // namespace

CompressionReport CompressCheckpoint(const CompressionOptions& options,
                                     const std::function<void(double fraction)>& on_progress,
                                     const std::atomic<bool>& cancelled) {
  const SourceCheckpoint source(options.model);
  const OutputPlan plan(source, options);
  const std::vector<std::string> small_files = SmallFiles(options.model);
  OutputFolder folder(options.output);
  CheckRoom(folder, plan.output_bytes());

  const int processors = NumAvailableProcessors();
  const int num_threads = options.threads > 0 ? options.threads : processors;
  Stream stream(num_threads, num_threads > processors, ChooseCpuIsa(options.cpu_isa));
  CompressionRun run(source, plan, options, stream, on_progress, cancelled);
  CheckpointWriter writer(source, plan, folder.temporary(), stream.threads(), cancelled);
  run.Write(writer);
  writer.Finish();

  for (const std::string& name : small_files) {
    folder.WriteFile(name, ReadFile(options.model + "/" + name, kMaxSmallFile));
  }
  folder.WriteFile("config.json", plan.Config());
  if (source.has_index()) folder.WriteFile("model.safetensors.index.json", plan.Index());
  folder.Publish();

  CompressionReport report;
  for (const PlannedMatrix& matrix : plan.matrices()) {
    report.num_matrices += matrix.targeted ? 1 : 0;
    report.num_sparse += IsSparse(matrix.form) ? 1 : 0;
  }
  report.num_passes = run.num_passes();
  report.source_bytes = source.size_bytes();
  report.output_bytes = static_cast<int64_t>(plan.output_bytes());
  report.memory_bytes = run.memory_bytes();
  report.removed = folder.removed();
  return report;
}

}  // namespace heddle
