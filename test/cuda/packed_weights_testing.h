// What every kind of weight that is int8, 2:4 or both is held to in products with few rows.
#pragma once

#include <vector>

#include "packed_weight.h"

namespace heddle::test {

// Of both types that x can have, what `kinds` are held to: any size and number of rows, from 1 to 8; rows of zeros;
// a bias; y of T and of float32; nothing written beside y.
void ExpectPackedProducts(const std::vector<PackedWeight::Kind>& kinds);
// Gated products, every activation, with and without a bias.
void ExpectPackedGatedProducts(const std::vector<PackedWeight::Kind>& kinds);
// Very small and very large rows of x, with elements that are larger than others beside them.
void ExpectPackedMagnitudes(const std::vector<PackedWeight::Kind>& kinds);
// A single row, multiplied as digits, in which one element is thousands of times as large as the others, and its
// weights are zero: the others lose no more than heddle_cuda.h says.
void ExpectPackedOutlier(const std::vector<PackedWeight::Kind>& kinds);
// A single row of bfloat16, multiplied as digits, whose elements are all less than 2^-96 goes in as multiples of
// 2^-117.
void ExpectPackedTinyRow(const std::vector<PackedWeight::Kind>& kinds);
// A row gets the same bits beside others, whatever they hold, and in a graph; alone too, but where x stays as it is and
// weights are int8, which a single row is multiplied by as digits, unless it is very long or ends within 16 bytes.
void ExpectPackedRowsAlone(const std::vector<PackedWeight::Kind>& kinds);
// NaN and infinity spoil the row of x that holds them, and no other; of a single row by int8 all outputs.
void ExpectPackedNotFinite(const std::vector<PackedWeight::Kind>& kinds);
// A product waits for the x that a product before it writes.
void ExpectPackedInOrder(const std::vector<PackedWeight::Kind>& kinds);

}  // namespace heddle::test
