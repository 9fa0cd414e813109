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
}

namespace {

// Everything but products of bfloat16 weights is that of AVX-512 with VNNI.
Kernels WithPackedMatmul(const PackedMatmulKernels& packed_matmul) {
  Kernels kernels = avx512_vnni::kKernels;
  kernels.packed_matmul = &packed_matmul;
  return kernels;
}

const Kernels& Avx512BFloat16Kernels() {
  static const Kernels kernels = WithPackedMatmul(avx512_bf16::kPackedMatmulKernels);
  return kernels;
}

const Kernels& AmxKernels() {
  static const Kernels kernels = WithPackedMatmul(amx::kPackedMatmulKernels);
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
