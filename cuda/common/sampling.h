// The op behind `sample`, see HeddleCudaSample.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

void Sample(HeddleCudaStream& stream, const HeddleCudaSample& op);

}  // namespace heddle::cuda
