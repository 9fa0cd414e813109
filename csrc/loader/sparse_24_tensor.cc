#include "loader/sparse_24_tensor.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/quote.h"
#include "loader/file_tensor.h"

namespace heddle {
namespace {

unsigned Nibble(const uint8_t* bits, int64_t group) { return (bits[group / 2] >> (group % 2 * 4)) & 0xfu; }

template <typename T>
void Expand(const T* elements, const uint8_t* bits, int64_t columns, T* out) {
  for (int64_t group = 0; group < columns / 4; ++group) {
    const unsigned mask = Nibble(bits, group);
    std::fill_n(out, 4, T{0});
    out[std::countr_zero(mask)] = elements[0];
    out[std::bit_width(mask) - 1] = elements[1];
    elements += 2;
    out += 4;
  }
}

}  // namespace

Sparse24Tensor::Sparse24Tensor(const LocatedTensor& compressed, const LocatedTensor& bitmask, const Shape& shape,
                               std::vector<float> scales)
    : StoredTensor(DTypeOf(*compressed.entry), shape, std::move(scales)), compressed_(compressed), bitmask_(bitmask) {
  HEDDLE_CHECK(shape.rank() == 2 && shape[1] % 4 == 0, compressed.entry->name);
}

void Sparse24Tensor::CheckBits(int64_t row, const uint8_t* bits) const {
  const auto fail = [&](const std::string& reason) {
    throw Error(ErrorCode::kModelFormat, bitmask_.file->path() + ": tensor " + Quote(bitmask_.entry->name) + " row " +
                                             std::to_string(row) + reason);
  };
  const int64_t columns = shape()[1];
  for (int64_t group = 0; group < columns / 4; ++group) {
    const unsigned mask = Nibble(bits, group);
    if (std::popcount(mask) == 2) continue;
    std::string found;
    for (unsigned i = 0; i < 4; ++i) found += (mask >> i & 1u) != 0 ? '1' : '0';
    fail(" must have two of columns " + std::to_string(group * 4) + " to " + std::to_string(group * 4 + 3) +
         ", found the bits " + found);
  }
  if (columns % 8 != 0 && Nibble(bits, columns / 4) != 0) {
    fail(" has bits beyond its " + std::to_string(columns) + " columns");
  }
}

void Sparse24Tensor::ReadElements(int64_t begin, int64_t count, void* destination) const {
  const int64_t columns = shape()[1];
  const int64_t first = columns > 0 ? begin / columns : 0;
  const int64_t rows = columns > 0 ? count / columns : 0;
  if (rows == 0) return;
  const auto size = static_cast<int64_t>(DTypeSize(dtype()));
  const int64_t element_bytes = columns / 2 * size;  // of a row
  const int64_t mask_bytes = (columns + 7) / 8;
  const Tensor elements(DType::kInt8, {rows, element_bytes});  // aligned, whatever they are
  std::vector<uint8_t> bits(static_cast<size_t>(rows * mask_bytes));
  compressed_.file->Read(*compressed_.entry, static_cast<uint64_t>(first * element_bytes),
                         static_cast<uint64_t>(rows * element_bytes), elements.view().data);
  bitmask_.file->Read(*bitmask_.entry, static_cast<uint64_t>(first * mask_bytes), bits.size(), bits.data());
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* mask = bits.data() + row * mask_bytes;
    CheckBits(first + row, mask);
    const void* from = elements.view().Row<int8_t>(row);
    void* to = static_cast<char*>(destination) + row * columns * size;
    if (size == 1) {
      Expand(static_cast<const uint8_t*>(from), mask, columns, static_cast<uint8_t*>(to));
    } else if (size == 2) {
      Expand(static_cast<const uint16_t*>(from), mask, columns, static_cast<uint16_t*>(to));
    } else {
      Expand(static_cast<const uint32_t*>(from), mask, columns, static_cast<uint32_t*>(to));
    }
  }
}

}  // namespace heddle
