// Every wrapped object carries a tag, so that a method called on the wrong one throws instead of reading foreign
// memory.
#pragma once

#include "napi/napi_setup.h"

namespace heddle {

inline constexpr napi_type_tag kEngineTag = {0x6865646c65456e67u, 0x1d3a5c7e9fb20461u};

}  // namespace heddle
