// SmoothQuant (Xiao and others, 2023): moves the size of a layer's inputs, channel by channel, into its weights, so
// that both are easy to quantise. The model computes the same.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "compress/layer_inputs.h"
#include "compress/source_checkpoint.h"
#include "device/thread_pool.h"

namespace heddle {

struct Smoothing {
  std::map<std::string, std::vector<float>> column_scales;  // what a matrix's columns are multiplied by, by its prefix
  std::map<std::string, std::vector<float>> norms;          // new vectors of norms, as they are stored
};

// Adds an input to `smoothing`: its norm is divided, and its matrices are multiplied, by
// largest^alpha / (the largest weight of the channel)^(1 - alpha). What the norm's dtype cannot hold of that is left
// out of the matrices too. `largest` [columns] is the magnitude of the input. REQUIRES: the input has a norm; its
// matrices are in `matrices`.
void Smooth(const SourceCheckpoint& source, const LayerInput& input, float norm_offset, std::span<const float> largest,
            float alpha, ThreadPool& threads, Smoothing& smoothing);

}  // namespace heddle
