#include "ceilings.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "device/buffer.h"
#include "device/cpu_isa.h"

namespace heddle::bench {
namespace {

constexpr double kProbeSeconds = 3e-3;

// Calls run() until some milliseconds have passed; operations a second when each call does `operations`.
template <typename Run>
double Rate(double operations, const Run& run) {
  run();  // warms up
  const double start = SecondsNow();
  double elapsed = 0;
  double count = 0;
  do {
    run();
    ++count;
    elapsed = SecondsNow() - start;
  } while (elapsed < kProbeSeconds);
  return count * operations / elapsed;
}

bool Always() { return true; }
bool HasDots() { return SupportsCpuIsa(CpuIsa::kAvx512BFloat16); }
bool HasAmx() { return DetectCpuIsa() == CpuIsa::kAmx; }

#if defined(__x86_64__)

#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f")))
#define TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bf16")))
#define TARGET_AMX __attribute__((target("avx512f,amx-tile,amx-bf16,amx-int8")))

constexpr int kSteps = 4096;

TARGET_AVX512 void FmaAvx512() {
  __m512 sums[16];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  __m512 factor = _mm512_set1_ps(1);
  asm volatile("" : "+v"(factor));
  for (int i = 0; i < kSteps; ++i) {
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(factor, factor, sum);
  }
  for (__m512& sum : sums) asm volatile("" ::"v"(sum));
}

TARGET_AVX2 void FmaAvx2() {
  __m256 sums[12];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  __m256 factor = _mm256_set1_ps(1);
  asm volatile("" : "+x"(factor));
  for (int i = 0; i < kSteps; ++i) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(factor, factor, sum);
  }
  for (__m256& sum : sums) asm volatile("" ::"x"(sum));
}

TARGET_AVX512_BF16 void DotsAvx512() {
  __m512 sums[16];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  __m512i factor = _mm512_set1_epi32(0x3f803f80);  // pairs of ones
  asm volatile("" : "+v"(factor));
  for (int i = 0; i < kSteps; ++i) {
    for (__m512& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(factor), reinterpret_cast<__m512bh>(factor));
    }
  }
  for (__m512& sum : sums) asm volatile("" ::"v"(sum));
}

double FmaRate() {
  if (DetectCpuIsa() >= CpuIsa::kAvx512) return Rate(16.0 * 16 * 2 * kSteps, FmaAvx512);
  if (DetectCpuIsa() >= CpuIsa::kAvx2) return Rate(12.0 * 8 * 2 * kSteps, FmaAvx2);
  return 0;
}

double DotRate() { return Rate(16.0 * 16 * 4 * kSteps, DotsAvx512); }

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

TARGET_AMX void ConfigureTiles() {
  static const TileConfig config;
  asm volatile("" ::: "memory");
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

// Products of elements in one tile instruction, times two.
constexpr double kBFloat16Operations = 16 * 16 * 32 * 2;
constexpr double kInt8Operations = 16 * 16 * 64 * 2;

TARGET_AMX void RegistersBFloat16() {
  for (int i = 0; i < kSteps; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

TARGET_AMX void RegistersInt8() {
  for (int i = 0; i < kSteps; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
}

// x: two groups of 16 tiles of K, 32 KiB; weights: pairs of panels, 512 KiB together.
constexpr int kTilesOfK = 16;
constexpr int kPanelPairs = 16;
constexpr size_t kTileBytes = 1024;

struct Tiles {
  std::shared_ptr<void> x = AllocateHost(2 * kTilesOfK * kTileBytes);
  std::shared_ptr<void> weight = AllocateHost(2 * kTilesOfK * kPanelPairs * kTileBytes);
};

TARGET_AMX void TiledBFloat16(const char* x, const char* weight) {
  for (int pair = 0; pair < kPanelPairs; ++pair) {
    for (int i = 0; i < kTilesOfK; ++i, weight += 2 * kTileBytes) {
      const char* rows = x + static_cast<size_t>(i) * 2 * kTileBytes;
      _tile_loadd(4, rows, 64);
      _tile_loadd(6, weight, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, weight + kTileBytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, rows + kTileBytes, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
}

TARGET_AMX void TiledInt8(const char* x, const char* weight) {
  for (int pair = 0; pair < kPanelPairs; ++pair) {
    for (int i = 0; i < kTilesOfK; ++i, weight += 2 * kTileBytes) {
      const char* rows = x + static_cast<size_t>(i) * 2 * kTileBytes;
      _tile_loadd(4, rows, 64);
      _tile_loadd(6, weight, 64);
      _tile_dpbssd(0, 4, 6);
      _tile_loadd(7, weight + kTileBytes, 64);
      _tile_dpbssd(1, 4, 7);
      _tile_loadd(5, rows + kTileBytes, 64);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
  }
}

TARGET_AMX void ReleaseTiles() { _tile_release(); }

template <typename Run>
double TileRate(double operations, const Run& run) {
  ConfigureTiles();
  const double rate = Rate(operations, run);
  ReleaseTiles();
  return rate;
}

double AmxBFloat16Rate() { return TileRate(4 * kBFloat16Operations * kSteps, RegistersBFloat16); }
double AmxInt8Rate() { return TileRate(4 * kInt8Operations * kSteps, RegistersInt8); }
double TiledRate(void (*run)(const char*, const char*), double operations) {
  const thread_local Tiles tiles;
  const auto* x = static_cast<const char*>(tiles.x.get());
  const auto* weight = static_cast<const char*>(tiles.weight.get());
  return TileRate(4 * operations * kTilesOfK * kPanelPairs, [&] { run(x, weight); });
}
double AmxBFloat16TiledRate() { return TiledRate(TiledBFloat16, kBFloat16Operations); }
double AmxInt8TiledRate() { return TiledRate(TiledInt8, kInt8Operations); }

// How far ahead to prefetch, into the second level: of 1 to 8 KiB into the first or the second the fastest, by a tenth.
constexpr size_t kAhead = 4096;

TARGET_AVX512 void ReadAvx512(const char* data, size_t bytes) {
  __m512i sums[4] = {};
  for (size_t at = 0; at < bytes; at += 256) {
    for (size_t line = 0; line < 4; ++line) {
      _mm_prefetch(data + at + kAhead + line * 64, _MM_HINT_T1);
      sums[line] = _mm512_xor_si512(sums[line], _mm512_load_si512(data + at + line * 64));
    }
  }
  for (__m512i& sum : sums) asm volatile("" ::"v"(sum));
}

TARGET_AVX2 void ReadAvx2(const char* data, size_t bytes) {
  __m256i sums[4] = {};
  for (size_t at = 0; at < bytes; at += 128) {
    for (size_t part = 0; part < 4; ++part) {
      if (part % 2 == 0) _mm_prefetch(data + at + kAhead + part * 32, _MM_HINT_T1);
      sums[part] =
          _mm256_xor_si256(sums[part], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + at + part * 32)));
    }
  }
  for (__m256i& sum : sums) asm volatile("" ::"x"(sum));
}

#else

double FmaRate() { return 0; }
double DotRate() { return 0; }
double AmxBFloat16Rate() { return 0; }
double AmxInt8Rate() { return 0; }
double AmxBFloat16TiledRate() { return 0; }
double AmxInt8TiledRate() { return 0; }

#endif

void ReadPlain(const char* data, size_t bytes) {
  uint64_t sum = 0;
  for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) sum ^= *reinterpret_cast<const uint64_t*>(data + at);
  asm volatile("" ::"r"(sum));
}

void Read(const char* data, size_t bytes) {
#if defined(__x86_64__)
  if (DetectCpuIsa() >= CpuIsa::kAvx512) return ReadAvx512(data, bytes);
  if (DetectCpuIsa() >= CpuIsa::kAvx2) return ReadAvx2(data, bytes);
#endif
  ReadPlain(data, bytes);
}

}  // namespace

double SecondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double SumOverThreads(int num_threads, const std::function<double(int thread)>& probe) {
  std::vector<double> results(static_cast<size_t>(num_threads));
  std::vector<std::thread> threads;
  for (int thread = 0; thread < num_threads; ++thread) {
    threads.emplace_back([&, thread] { results[static_cast<size_t>(thread)] = probe(thread); });
  }
  for (std::thread& thread : threads) thread.join();
  double sum = 0;
  for (double result : results) sum += result;
  return sum;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double ReadBytesPerSecond(const char* data, size_t bytes) {
  const double start = SecondsNow();
  Read(data, bytes);
  return static_cast<double>(bytes) / (SecondsNow() - start);
}

const std::vector<Probe>& Probes() {
  static const std::vector<Probe> probes = {
      {"fma_f32", Always, FmaRate},          {"dot_bf16", HasDots, DotRate},
      {"amx_bf16", HasAmx, AmxBFloat16Rate}, {"amx_bf16_tiled", HasAmx, AmxBFloat16TiledRate},
      {"amx_int8", HasAmx, AmxInt8Rate},     {"amx_int8_tiled", HasAmx, AmxInt8TiledRate}};
  return probes;
}

}  // namespace heddle::bench
