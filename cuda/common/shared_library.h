// Libraries that are opened at run time, so that a machine without one lacks only what needs it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/error.h"

namespace heddle::cuda {

// The folder in which the library lies that holds this code.
std::string FolderOfThisLibrary();

class SharedLibrary {
 public:
  // Opens the file that the environment variable `variable` names, else the first of `files` that there is. Fails with
  // kHeddleCudaUnavailable, with `needed`, what is to be done, and the reasons.
  SharedLibrary(const char* variable, std::vector<std::string> files, const std::string& needed);

  const std::string& file() const { return file_; }

  // Fails with kHeddleCudaUnavailable.
  template <typename Function>
  void Find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(FindAddress(name));
  }

  // Until the process ends; else it is closed with this object.
  void KeepOpen() { static_cast<void>(handle_.release()); }

 private:
  struct Closer {
    void operator()(void* handle) const noexcept;
  };

  void* FindAddress(const char* name) const;

  std::string file_;
  std::unique_ptr<void, Closer> handle_;
};

}  // namespace heddle::cuda
