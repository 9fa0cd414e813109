// Lists of modules in a quantization_config: what to quantise, what to leave out.
//
// A module is the prefix of a weight's name, e.g. "model.layers.0.self_attn.q_proj", and here always of class Linear.
// Immutable, so thread-safe.
#pragma once

#include <string>
#include <vector>

#include "loader/name_pattern.h"

namespace heddle {

class ModuleList {
 public:
  ModuleList() = default;

  // Targets or exceptions of compressed-tensors: names, classes such as "Linear", or patterns with "re:" before them.
  // `where` and failures as those of NamePattern.
  static ModuleList OfTargets(const std::vector<std::string>& entries, const std::string& where);

  // llm_int8_skip_modules. Releases of transformers differ in what an entry stands for: whole names or their last
  // parts, beginnings with a dot behind them anywhere, the end of a name, or a pattern for its beginning. A name counts
  // as listed if it is for any of them.
  static ModuleList OfSkipped(const std::vector<std::string>& entries, const std::string& where);

  bool Contains(const std::string& module) const;

 private:
  std::vector<std::string> names_;
  std::vector<std::string> suffixes_;
  std::vector<std::string> parts_;  // with the dot
  std::vector<NamePattern> patterns_;
  bool all_ = false;
};

}  // namespace heddle
