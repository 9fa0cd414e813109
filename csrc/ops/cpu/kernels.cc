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
namespace avx512_vnni {
extern const Kernels kKernels;
}
namespace avx512_bf16 {
extern const PackedMatmulKernels kPackedMatmulKernels;
}
namespace amx {
extern const PackedMatmulKernels kPackedMatmulKernels;
extern const PackedMatmulKernels kInt8MatmulKernels;
}  // namespace amx

namespace {

// What these two do not have is that of AVX-512 with VNNI.
const Kernels& Avx512BFloat16Kernels() {
  static const Kernels kernels = [] {
    Kernels own = avx512_vnni::kKernels;
    own.packed_matmul = &avx512_bf16::kPackedMatmulKernels;
    return own;
  }();
  return kernels;
}

const Kernels& AmxKernels() {
  static const Kernels kernels = [] {
    Kernels own = avx512_vnni::kKernels;
    own.packed_matmul = &amx::kPackedMatmulKernels;
    own.int8_matmul = &amx::kInt8MatmulKernels;
    return own;
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
    case CpuIsa::kAvx512Vnni:
      return avx512_vnni::kKernels;
    case CpuIsa::kAvx512BFloat16:
      return Avx512BFloat16Kernels();
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
