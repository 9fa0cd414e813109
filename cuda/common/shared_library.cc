#include "common/shared_library.h"

#include <dlfcn.h>

#include <cstdlib>

namespace heddle::cuda {

std::string FolderOfThisLibrary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&FolderOfThisLibrary), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

SharedLibrary::SharedLibrary(const char* variable, std::vector<std::string> files, const std::string& needed) {
  const char* const chosen = std::getenv(variable);
  if (chosen != nullptr && *chosen != '\0') files = {chosen};
  std::string reasons;
  for (const std::string& file : files) {
    handle_.reset(dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (handle_ != nullptr) {
      file_ = file;
      return;
    }
    const char* const reason = dlerror();
    reasons += (reasons.empty() ? "" : "; ") + (reason != nullptr ? std::string(reason) : file);
  }
  Fail(kHeddleCudaUnavailable, needed + " (" + reasons + ")");
}

void SharedLibrary::Closer::operator()(void* handle) const noexcept { dlclose(handle); }

void* SharedLibrary::FindAddress(const char* name) const {
  void* const address = dlsym(handle_.get(), name);
  if (address == nullptr) Fail(kHeddleCudaUnavailable, file_ + " has no function " + name);
  return address;
}

}  // namespace heddle::cuda
