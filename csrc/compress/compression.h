// Makes a checkpoint smaller: 8-bit weights, 2:4 sparsity, or one on top of the other, as compressed-tensors that other
// tools read.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace heddle {

enum class CompressionScheme { kNone, kInt8, kW8A8 };
enum class PruningMethod { kNone, kMagnitude, kWanda, kSparseGpt };

struct CompressionOptions {
  std::string model;   // folder
  std::string output;  // folder to make
  CompressionScheme scheme = CompressionScheme::kNone;
  PruningMethod pruning = PruningMethod::kNone;
  bool dense = false;               // without a scheme: pruned matrices stay in the dense format, with their zeros
  float smooth = 0;                 // SmoothQuant's alpha, 0: off
  std::vector<std::string> ignore;  // linear layers left as they are: a whole name, or its last parts

  // What calibration runs through the model: kWanda, kSparseGpt and smoothing need some.
  std::vector<std::vector<int32_t>> sequences;

  int64_t memory_bytes = 0;  // of a run that calibrates, to aim for; 0: half of what is available
  int threads = 0;           // 0: the processors available
  std::string cpu_isa;       // "": the best
};

struct CompressionReport {
  int num_matrices = 0;  // made smaller
  int num_sparse = 0;    // of them stored 2:4
  int num_passes = 0;    // of the calibration text through the model
  int64_t source_bytes = 0;
  int64_t output_bytes = 0;
  int64_t memory_bytes = 0;          // at most, beside a few MiB
  std::vector<std::string> removed;  // what killed runs had left beside the output
};

// Takes over the model's other files, such as tokenizer.json, but for those of weights and of more than 256 MiB.
//
// `on_progress` gets a fraction in [0, 1], on the calling thread. Nothing is left behind when it fails: with
// kModelFormat, kUnsupportedModel and kInsufficientMemory as an engine would; with kInvalidArgument for options that
// cannot be met, an output that exists or cannot be written, and a disk without room; with kCancelled.
CompressionReport CompressCheckpoint(const CompressionOptions& options,
                                     const std::function<void(double fraction)>& on_progress,
                                     const std::atomic<bool>& cancelled);

}  // namespace heddle
