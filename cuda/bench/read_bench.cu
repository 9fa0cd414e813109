// What reading device memory can reach: see ceilings.cuh. One line of JSON.
#include "bench/ceilings.cuh"

int main() {
  heddle::bench::Device device;
  heddle::bench::ReadCeiling(device);
  return 0;
}
