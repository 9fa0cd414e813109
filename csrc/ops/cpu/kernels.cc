#include "ops/cpu/kernels.h"

#include <string>

#include "base/error.h"

namespace heddle::ops::cpu {

namespace scalar {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace amx {
extern const TileMatmulKernels kTileMatmulKernels;
}

namespace {

// Everything but products is that of AVX-512.
const Kernels& AmxKernels() {
  static const Kernels kernels = [] {
    Kernels table = avx512::kKernels;
    table.tile_matmul = &amx::kTileMatmulKernels;
    return table;
  }();
  return kernels;
}

}  // namespace
#endif

const Kernels& KernelsFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return scalar::kKernels;
#if defined(__x86_64__)
    case CpuIsa::kAvx2:
      return avx2::kKernels;
    case CpuIsa::kAvx512:
      return avx512::kKernels;
    case CpuIsa::kAmx:
      return AmxKernels();
#else
    default:
      break;
#endif
  }
  ThrowInternal(__FILE__, __LINE__, "this build has kernels for it", CpuIsaName(isa));
}

}  // namespace heddle::ops::cpu
