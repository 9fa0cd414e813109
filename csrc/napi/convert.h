// Between JavaScript values and the core's plain data. Types are checked: a wrong one is kInvalidArgument with the key.
//
// JavaScript thread only.
#pragma once

#include <memory>

#include "compress/compression.h"
#include "core/engine_config.h"
#include "engine/engine_output.h"
#include "engine/engine_plan.h"
#include "engine/threaded_engine.h"
#include "napi/napi_setup.h"

namespace heddle {

EngineConfig ToEngineConfig(const Napi::Object& object);
// Null for null.
std::shared_ptr<const Vocabulary> ToVocabulary(const Napi::Value& value);
// `*derive_seed` when the caller gave none.
Request ToRequest(const Napi::Object& object, bool* derive_seed);
std::vector<int32_t> ToInt32Vector(const Napi::Value& value, const char* key);

CompressionOptions ToCompressionOptions(const Napi::Object& object);

Napi::Object FromOutput(Napi::Env env, const EngineOutput& output);
Napi::Object FromInfo(Napi::Env env, const EngineInfo& info);
Napi::Object FromStats(Napi::Env env, const EngineStats& stats, int64_t callbacks);
Napi::Object FromPlan(Napi::Env env, const EnginePlan& plan);
Napi::Object FromFailure(Napi::Env env, const EngineFailure& failure);
Napi::Object FromReport(Napi::Env env, const CompressionReport& report);

}  // namespace heddle
