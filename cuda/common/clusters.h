// How many clusters a device has room for.
#pragma once

namespace heddle::cuda {

// Clusters of so many blocks, with so many bytes of shared memory a block, that are on the device at the same time.
// Fewer than its multiprocessors would hold, as a cluster's must be neighbours. From compute capability 9.0 on.
int MostClusters(int device, int blocks_of_cluster, int shared_bytes);

}  // namespace heddle::cuda
