// Products of an 8B model against what the device can do at most, measured in the same run: GB/s of few rows against a
// kernel that only reads, with cuBLASLt's beside them, TFLOP/s of many rows against a product of 8192^3.
//
// One JSON object a line to stdout, then a table. Every time is the median of kRuns launches of a graph, after it has
// run for kWarmUpSeconds. Weights are normally distributed and rotate through more memory than L2 holds.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "gemm/epilogues.h"
#include "gemm/gemm.h"

namespace {

using heddle::bench::CheckCuda;
using heddle::bench::Die;
using heddle::bench::kRuns;
using heddle::bench::Median;

constexpr double kWarmUpSeconds = 0.1;
constexpr int64_t kWeightBytes = int64_t{3} << 30;
constexpr int64_t kRotatedBytes = int64_t{1} << 30;
constexpr int64_t kWorkspaceBytes = int64_t{256} << 20;
constexpr HeddleCudaDType kBf16 = kHeddleCudaBFloat16;
constexpr HeddleCudaDType kF32 = kHeddleCudaFloat32;

struct Shape {
  const char* name;
  int64_t n, k;
  bool gated = false;
};
constexpr Shape kQkv = {"qkv", 6144, 4096};
constexpr Shape kOut = {"o", 4096, 4096};
constexpr Shape kGateUp = {"gate_up", 28672, 4096};
constexpr Shape kGated = {"gate_up gated", 28672, 4096, true};
constexpr Shape kDown = {"down", 4096, 14336};
constexpr Shape kHead = {"lm_head", 128256, 4096};
constexpr Shape kShapes[] = {kQkv, kOut, kGateUp, kGated, kDown, kHead};
constexpr int64_t kFewRows[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128};
constexpr int64_t kManyRows[] = {256, 512, 2048, 4096, 8192};
constexpr int64_t kMaxRows = 8192;
constexpr int kLayers = 4;

// Who computes a product: whatever the library chooses, or cuBLASLt as the library would use it.
enum class Method { kChosen, kCublasLt };
constexpr Method kMethods[] = {Method::kChosen, Method::kCublasLt};
const char* NameOf(Method method) { return method == Method::kChosen ? "chosen" : "cuBLASLt"; }

constexpr int64_t WeightBytes(const Shape& shape) { return shape.n * shape.k * 2; }

// The library, one stream of it and what all measurements share.
class Device : public heddle::bench::Device {
 public:
  Device() : heddle::bench::Device(*HeddleCudaGetApi(HEDDLE_CUDA_API_VERSION), kWorkspaceBytes, kWarmUpSeconds) {
    weights_ = Random(kWeightBytes / 2, 1, 0.02f);
  }

  const void* weights() const { return weights_; }

  // `count` normally distributed numbers, in rows of 4096.
  void* Random(int64_t count, uint64_t seed, float deviation, HeddleCudaDType dtype = kBf16) {
    constexpr int64_t kRow = 4096;
    void* const memory = Allocate(count * (dtype == kF32 ? 4 : 2));
    Check(api().fill_random(stream(), {memory, dtype, count / kRow, kRow, kRow}, seed, deviation));
    return memory;
  }
  void* Allocate(int64_t bytes) {
    void* memory = nullptr;
    Check(api().allocate(stream(), bytes, &memory));
    Check(api().fill(stream(), memory, 0, bytes));
    return memory;
  }

  // The copy-th of matrices of this shape that lie one after another, as often as they fit.
  HeddleCudaMatrix Weight(const Shape& shape, int64_t copy) const {
    const int64_t offset = copy % (kWeightBytes / WeightBytes(shape)) * WeightBytes(shape);
    return {static_cast<char*>(weights_) + offset, kBf16, shape.n, shape.k, shape.k};
  }

  void Multiply(Method method, const Shape& shape, const HeddleCudaMatrix& weight, void* x, void* y, int64_t rows,
                HeddleCudaDType y_dtype = kBf16) const {
    const int64_t size = shape.gated ? shape.n / 2 : shape.n;
    const HeddleCudaMatrix from = {x, kBf16, rows, shape.k, shape.k};
    const HeddleCudaMatrix to = {y, y_dtype, rows, size, size};
    if (method == Method::kCublasLt) {
      MultiplyByCublasLt(shape, weight, from, to);
    } else if (shape.gated) {
      const HeddleCudaGatedMatmul op = {from, weight, nullptr, kHeddleCudaSilu, to};
      Check(api().gated_matmul(stream(), &op));
    } else {
      const HeddleCudaMatmul op = {from, weight, nullptr, to};
      Check(api().matmul(stream(), &op));
    }
  }

 private:
  void MultiplyByCublasLt(const Shape& shape, const HeddleCudaMatrix& weight, const HeddleCudaMatrix& x,
                          const HeddleCudaMatrix& y) const {
    const HeddleCudaMatrix sums = {stream()->workspace, kBf16, x.num_rows, shape.n, shape.n};
    const HeddleCudaMatmul op = {x, weight, nullptr, shape.gated ? sums : y};
    if (!heddle::cuda::GemmPlans::Of(*stream()).Multiply(*stream(), op)) Die("cuBLASLt has no algorithm");
    if (shape.gated) heddle::cuda::GateSums(*stream(), sums, nullptr, kHeddleCudaSilu, y);
  }

  void* weights_ = nullptr;
};

__device__ __forceinline__ uint4 LoadOnce(const uint4* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// Reads `count` units, kInFlight at a time a thread, and does as little as it can with them.
template <int kInFlight>
__global__ void __launch_bounds__(1024, 1) ReadKernel(const uint4* from, int64_t count, uint32_t* sink) {
  uint32_t bits = 0;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + (kInFlight - 1) * step < count; i += kInFlight * step) {
    uint4 values[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) values[j] = LoadOnce(from + i + j * step);
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) bits ^= values[j].x ^ values[j].y ^ values[j].z ^ values[j].w;
  }
  for (; i < count; i += step) bits ^= LoadOnce(from + i).x;
  if (bits == 0x5eed5eedu) *sink = bits;
}

// The best of several grids, in bytes a second.
double ReadCeiling(const Device& device) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  cudaDeviceProp properties{};
  CheckCuda(cudaGetDeviceProperties(&properties, 0));
  uint32_t* sink = nullptr;
  CheckCuda(cudaMalloc(&sink, sizeof(uint32_t)));
  cudaEvent_t events[2];
  for (cudaEvent_t& event : events) CheckCuda(cudaEventCreate(&event));
  double best = 0;
  for (const int threads : {256, 512, 1024}) {
    for (const int blocks_per_processor : {1, 2, 4, 8}) {
      if (threads * blocks_per_processor > 2048) continue;
      std::vector<double> seconds;
      for (int run = 0; run < kRuns + 5; ++run) {
        CheckCuda(cudaEventRecord(events[0]));
        ReadKernel<8><<<properties.multiProcessorCount * blocks_per_processor, threads>>>(
            static_cast<const uint4*>(device.weights()), kBytes / 16, sink);
        CheckCuda(cudaGetLastError());
        CheckCuda(cudaEventRecord(events[1]));
        CheckCuda(cudaEventSynchronize(events[1]));
        float milliseconds = 0;
        CheckCuda(cudaEventElapsedTime(&milliseconds, events[0], events[1]));
        if (run >= 5) seconds.push_back(milliseconds / 1000.0);
      }
      best = std::max(best, static_cast<double>(kBytes) / Median(seconds));
    }
  }
  return best;
}

struct Row {
  std::string what;
  std::string shape;
  int64_t rows;
  double seconds;
  double rate;
  const char* unit;
  double share;
};

class Report {
 public:
  void Add(const Row& row) {
    std::printf(
        "{\"what\": \"%s\", \"shape\": \"%s\", \"rows\": %lld, \"microseconds\": %.2f, \"rate\": %.1f, \"unit\": "
        "\"%s\", \"share\": %.4f}\n",
        row.what.c_str(), row.shape.c_str(), static_cast<long long>(row.rows), row.seconds * 1e6, row.rate, row.unit,
        row.share);
    std::fflush(stdout);
    rows_.push_back(row);
  }
  void PrintTable() const {
    std::printf("\n%-16s %-14s %6s %12s %10s %-8s %7s\n", "what", "shape", "rows", "us", "rate", "unit", "share");
    for (const Row& row : rows_) {
      std::printf("%-16s %-14s %6lld %12.2f %10.1f %-8s %6.1f%%\n", row.what.c_str(), row.shape.c_str(),
                  static_cast<long long>(row.rows), row.seconds * 1e6, row.rate, row.unit, row.share * 100);
    }
  }

 private:
  std::vector<Row> rows_;
};

// Products of one shape after another, each with its own weights.
double SecondsOfProduct(const Device& device, Method method, const Shape& shape, void* x, void* y, int64_t rows,
                        int64_t repeats) {
  const double seconds = device.MedianSeconds([&] {
    for (int64_t i = 0; i < repeats; ++i) device.Multiply(method, shape, device.Weight(shape, i), x, y, rows);
  });
  return seconds / static_cast<double>(repeats);
}

// A decoder without its attention: norms and the five products of kLayers layers, then the head. Returns the bytes of
// all weights, which lie one after another.
int64_t EnqueueDecoder(const Device& device, Method method, void* x, void* y, void* residual, const float* norm,
                       int64_t rows) {
  const HeddleCudaApi& api = device.api();
  int64_t offset = 0;
  const auto multiply = [&](const Shape& shape, void* from, void* to, HeddleCudaDType to_dtype = kBf16) {
    HeddleCudaMatrix weight = device.Weight(shape, 0);
    weight.data = static_cast<char*>(weight.data) + offset;
    offset += WeightBytes(shape);
    device.Multiply(method, shape, weight, from, to, rows, to_dtype);
  };
  const HeddleCudaMatrix hidden = {x, kBf16, rows, kOut.n, kOut.n};
  const auto add_norm = [&](void* added) {
    const HeddleCudaAddRmsNorm op = {
        {added, kBf16, rows, kOut.n, kOut.n}, {residual, kF32, rows, kOut.n, kOut.n}, norm, 1e-5f, hidden};
    device.Check(api.add_rms_norm(device.stream(), &op));
  };
  // Rows of qkv are read as if attention had left its output at the front of the same memory.
  for (int layer = 0; layer < kLayers; ++layer) {
    multiply(kQkv, x, y);
    multiply(kOut, y, x);
    add_norm(x);
    multiply(kGated, x, y);
    multiply(kDown, y, x);
    add_norm(x);
  }
  multiply(kHead, x, y, kF32);
  return offset;
}

void Run(Device& device) {
  Report report;
  const double read = ReadCeiling(device);
  report.Add({"read ceiling", "2 GiB", 0, static_cast<double>(int64_t{2} << 30) / read, read / 1e9, "GB/s", 1});

  constexpr Shape kSquare = {"8192^3", 8192, 8192};
  void* const x = device.Random(kMaxRows * kDown.k, 2, 1);
  void* const y = device.Allocate(kMaxRows * kHead.n * 2);
  const auto flops = [](const Shape& shape, int64_t rows) { return 2.0 * shape.n * shape.k * rows; };
  const double square_seconds = SecondsOfProduct(device, Method::kChosen, kSquare, x, y, 8192, 4);
  const double peak = flops(kSquare, 8192) / square_seconds;
  report.Add({"product ceiling", kSquare.name, 8192, square_seconds, peak / 1e12, "TFLOP/s", 1});

  for (const Shape& shape : kShapes) {
    for (const int64_t rows : kFewRows) {
      for (const Method method : kMethods) {
        const int64_t repeats = std::max<int64_t>(kRotatedBytes / WeightBytes(shape), 2);
        const double seconds = SecondsOfProduct(device, method, shape, x, y, rows, repeats);
        const double rate = static_cast<double>(WeightBytes(shape)) / seconds;
        report.Add({NameOf(method), shape.name, rows, seconds, rate / 1e9, "GB/s", rate / read});
      }
    }
  }

  void* const residual = device.Allocate(kMaxRows * kOut.n * 4);
  const auto* const norm = static_cast<const float*>(device.Random(kOut.n, 3, 1, kF32));
  for (const int64_t rows : kFewRows) {
    for (const Method method : kMethods) {
      int64_t bytes = 0;
      const double seconds =
          device.MedianSeconds([&] { bytes = EnqueueDecoder(device, method, x, y, residual, norm, rows); });
      const double rate = static_cast<double>(bytes) / seconds;
      report.Add({NameOf(method), std::to_string(kLayers) + " layers", rows, seconds, rate / 1e9, "GB/s", rate / read});
    }
  }

  for (const Shape& shape : kShapes) {
    for (const int64_t rows : kManyRows) {
      const int64_t repeats = rows <= 512 ? std::max<int64_t>(kRotatedBytes / WeightBytes(shape), 2) : 2;
      const double seconds = SecondsOfProduct(device, Method::kChosen, shape, x, y, rows, repeats);
      const double rate = flops(shape, rows) / seconds;
      // Whichever of the two the shape could reach at most.
      const double bound = std::max(static_cast<double>(WeightBytes(shape)) / read, flops(shape, rows) / peak);
      report.Add({NameOf(Method::kChosen), shape.name, rows, seconds, rate / 1e12, "TFLOP/s", bound / seconds});
    }
  }
  report.PrintTable();
}

}  // namespace

int main() {
  Device device;
  Run(device);
  return 0;
}
