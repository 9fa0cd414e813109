#include "comm/nccl_environment.h"

#include <unistd.h>

#include <map>
#include <string>
#include <string_view>

namespace heddle::cuda {
namespace {

using Variables = std::map<std::string, std::string, std::less<>>;

Variables ReadVariables() {
  Variables variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t end = text.find('=');
    if (text.rfind("NCCL_", 0) == 0 && end != text.npos) variables.emplace(text.substr(0, end), text.substr(end + 1));
  }
  return variables;
}

const Variables& Remembered() {
  static const Variables variables = ReadVariables();
  return variables;
}

}  // namespace

void RememberNcclEnvironment() { Remembered(); }

const char* NcclEnvironment(const char* name) {
  const auto found = Remembered().find(std::string_view(name));
  return found == Remembered().end() ? nullptr : found->second.c_str();
}

}  // namespace heddle::cuda
