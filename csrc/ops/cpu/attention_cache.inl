// How attention reads the paged cache: element types, and where the chunks of a partition lie.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace attention {

// How a cache is read: 16 elements at a time, in any order of lanes that Ordered() undoes. The elements of a scaled
// cache are multiples of a scale that each token has.
struct Float32Cache {
  using Element = float;
  static constexpr bool kScaled = false;
  static F32x16 LoadVector(const Element* p) { return Load(p); }
  static F32x16 Ordered(F32x16 a) { return a; }
};
struct BFloat16Cache {
  using Element = uint16_t;
  static constexpr bool kScaled = false;
  static F32x16 LoadVector(const Element* p) { return LoadBFloat16Unordered(p); }
  static F32x16 Ordered(F32x16 a) { return InOrder(a); }
};
struct Float16Cache {
  using Element = uint16_t;
  static constexpr bool kScaled = false;
  static F32x16 LoadVector(const Element* p) { return LoadFloat16(p); }
  static F32x16 Ordered(F32x16 a) { return a; }
};
struct Int8Cache {
  using Element = int8_t;
  static constexpr bool kScaled = true;
  static F32x16 LoadVector(const Element* p) { return LoadInt8(p); }
  static F32x16 Ordered(F32x16 a) { return a; }
};

constexpr int kChunk = 16;  // keys scored by the lanes of one vector
constexpr int kChunks = kAttentionPartition / kChunk;

// Where one partition lies in the cache: the first element of each chunk of 16 keys. Chunks that no row sees repeat one
// that is seen, for the sake of prefetching alone.
template <typename Cache>
struct Partition {
  const typename Cache::Element* keys[kChunks];
  const typename Cache::Element* values[kChunks];
  const typename Cache::Element* next_keys[kChunks];  // of the partition after this one
  // Of scaled caches: the first scale of each chunk.
  const float* key_scales[kChunks];
  const float* value_scales[kChunks];
};

// One number of each token of a chunk, times the token's scale.
template <typename Cache>
inline F32x16 Scaled(F32x16 a, const float* const (&scales)[kChunks], int chunk) {
  if constexpr (Cache::kScaled) {
    return Mul(a, Load(scales[chunk]));
  } else {
    return a;
  }
}

template <typename Cache>
Partition<Cache> PartitionAt(const AttentionArgs& args, const AttentionTask& task, int base, int begin, int end) {
  Partition<Cache> partition;
  const auto* keys = static_cast<const typename Cache::Element*>(args.keys);
  const auto* values = static_cast<const typename Cache::Element*>(args.values);
  const int64_t head_elements = int64_t{args.head_dim} * args.block_size;
  for (int c = 0; c < 2 * kChunks; ++c) {
    int position = base + c * kChunk;
    position = position < begin ? begin : position < end ? position : end - 1;
    position = position / kChunk * kChunk;
    const int64_t block = task.block_ids[position / args.block_size];
    const int64_t head = block * args.num_kv_heads + task.kv_head;
    const int64_t offset = position % args.block_size;
    const auto* chunk_keys = keys + head * head_elements + offset;
    if (c < kChunks) {
      partition.keys[c] = chunk_keys;
      partition.values[c] = values + head * head_elements + offset * args.head_dim;
    } else {
      partition.next_keys[c - kChunks] = chunk_keys;
    }
    if constexpr (Cache::kScaled) {
      const float* key_scales = args.key_scales + head * args.block_size + offset;
      const float* value_scales = args.value_scales + head * args.block_size + offset;
      if (c < kChunks) {
        partition.key_scales[c] = key_scales;
        partition.value_scales[c] = value_scales;
      } else {
        Prefetch(key_scales);
        Prefetch(value_scales);
      }
    }
  }
  return partition;
}

}  // namespace attention
}  // namespace heddle::ops::cpu::HEDDLE_ISA
