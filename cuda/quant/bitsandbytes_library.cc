#include "quant/bitsandbytes_library.h"

#include <map>
#include <mutex>
#include <string>

#include "common/shared_library.h"

namespace heddle::cuda {
namespace {

// As its own build names it: cuda130 for CUDA 13.0.
std::string FileName() {
  return "libbitsandbytes_cuda" + std::to_string(CUDART_VERSION / 1000) + std::to_string(CUDART_VERSION % 1000 / 10) +
         ".so";
}

BitsAndBytesLibrary Open() {
  SharedLibrary file(
      "HEDDLE_BITSANDBYTES_LIBRARY", {FolderOfThisLibrary() + "/" + FileName(), FileName()},
      "provider 'bitsandbytes' needs the library of bitsandbytes, and the cuBLAS and CUDA runtime that it "
      "was linked with: let HEDDLE_BITSANDBYTES_LIBRARY name the libbitsandbytes_cuda*.so of its Python "
      "package, or build it (-DHEDDLE_BITSANDBYTES)");
  BitsAndBytesLibrary library;
  file.Find("get_context", library.get_context);
  file.Find("cint8_vector_quant", library.quantize_rows);
  file.Find("cigemmlt_32", library.multiply);
  file.Find("cdequant_mm_int32_fp16", library.scale_sums);
  file.KeepOpen();  // as kernels of it may be in graphs
  return library;
}

}  // namespace

const BitsAndBytesLibrary& BitsAndBytes() {
  static const BitsAndBytesLibrary library = Open();
  return library;
}

void* BitsAndBytesContext(int device) {
  static std::mutex mutex;
  static std::map<int, void*> contexts;
  const std::lock_guard lock(mutex);
  void*& context = contexts[device];
  if (context == nullptr) context = BitsAndBytes().get_context();
  return context;
}

}  // namespace heddle::cuda
