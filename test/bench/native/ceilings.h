// What the machine at hand can do at most: read bandwidth, and rates of the matrix and vector units.
//
// Each probe is one short measurement on the calling thread; callers repeat it, alternate it with what they measure,
// and take the median, since shared machines change their speed within seconds.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace heddle::bench {

double SecondsNow();

// Calls probe(thread) on `num_threads` threads at once; the sum of what it gave.
double SumOverThreads(int num_threads, const std::function<double(int thread)>& probe);

double Median(std::vector<double> values);

// Bytes a second of one pass over [data, data + bytes), 64-byte aligned, with software prefetch.
double ReadBytesPerSecond(const char* data, size_t bytes);

// A rate in operations (a multiply-add is two) a second. `available` on this machine or not.
struct Probe {
  std::string name;
  bool (*available)();
  double (*operations_per_second)();
};

// fma_f32: the widest float32 multiply-adds, registers only.
// dot_bf16: AVX-512's dot products of bfloat16 pairs, registers only.
// amx_bf16, amx_int8: tile products, registers only.
// amx_bf16_tiled, amx_int8_tiled: two by two tiles with all loads a product needs: x in the first cache level, weights
// streamed from the second. The ceiling of a matrix product.
const std::vector<Probe>& Probes();

}  // namespace heddle::bench
