// One declaration a family; see registry.cc.
#pragma once

#include "models/registry.h"

namespace heddle {

ModelFamily LlamaFamily();
ModelFamily MistralFamily();
ModelFamily Qwen2Family();
ModelFamily Qwen3Family();
ModelFamily Gemma2Family();
ModelFamily Gemma3Family();
ModelFamily Phi3Family();

}  // namespace heddle
