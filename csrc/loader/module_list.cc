#include "loader/module_list.h"

#include <algorithm>

namespace heddle {

ModuleList ModuleList::OfTargets(const std::vector<std::string>& entries, const std::string& where) {
  constexpr std::string_view kPattern = "re:";
  ModuleList list;
  for (const std::string& entry : entries) {
    if (entry.starts_with(kPattern)) {
      list.patterns_.emplace_back(entry.substr(kPattern.size()), where);
    } else {
      list.all_ = list.all_ || entry == "Linear" || entry == "Module";
      list.names_.push_back(entry);
    }
  }
  return list;
}

ModuleList ModuleList::OfSkipped(const std::vector<std::string>& entries, const std::string& where) {
  ModuleList list;
  for (const std::string& entry : entries) {
    list.suffixes_.push_back(entry);
    list.parts_.push_back(entry + ".");
    list.patterns_.emplace_back(entry, where);
  }
  return list;
}

bool ModuleList::Contains(const std::string& module) const {
  const auto is_any = [](const auto& entries, const auto& matches) {
    return std::any_of(entries.begin(), entries.end(), matches);
  };
  return all_ || is_any(names_, [&](const std::string& name) { return module == name; }) ||
         is_any(suffixes_, [&](const std::string& suffix) { return module.ends_with(suffix); }) ||
         is_any(parts_, [&](const std::string& part) { return module.find(part) != std::string::npos; }) ||
         is_any(patterns_, [&](const NamePattern& pattern) { return pattern.Matches(module); });
}

}  // namespace heddle
