#include "loader/packed_int8_tensor.h"

namespace heddle {

void PackedInt8Tensor::ReadElements(int64_t begin, int64_t count, void* destination) const {
  const int64_t columns = shape()[1];
  const int64_t row_bytes = RowBytes(columns);
  const int64_t rows = columns > 0 ? count / columns : 0;
  if (rows == 0) return;
  std::vector<uint8_t> packed(static_cast<size_t>(rows * row_bytes));
  located_.file->Read(*located_.entry, static_cast<uint64_t>(begin / columns * row_bytes), packed.size(),
                      packed.data());
  auto* out = static_cast<uint8_t*>(destination);
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* in = packed.data() + row * row_bytes;
    for (int64_t i = 0; i < columns; ++i) out[row * columns + i] = in[i] ^ 0x80u;  // x + 128 in two's complement
  }
}

}  // namespace heddle
