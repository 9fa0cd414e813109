// The CPU kernels in plain C++, for any machine.
#define HEDDLE_ISA scalar
#include "ops/cpu/all_kernels.inl"
