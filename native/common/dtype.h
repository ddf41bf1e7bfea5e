// Storage dtypes: how many values and bytes one block of each has. All sizes are computed here and nowhere else.
#pragma once

#include <cstdint>

#include "abi/kvasir_abi.h"

namespace kv {

struct DtypeInfo {
  const char* name;           // as written in error messages
  std::uint32_t block_values;  // values per block along a row; 1 for plain floats
  std::uint32_t block_bytes;
  bool is_block_quantized;
};

// Information on a weight dtype, or nullptr for a number that is not one (KV_Q8 and KV_Q4 exist in the KV pool only).
const DtypeInfo* weight_dtype_info(std::int32_t dtype);

// Bytes of one row of `cols` values. False when dtype is no weight dtype, cols is no positive multiple of its block, or
// the product overflows; `bytes` is then untouched.
bool weight_row_bytes(std::int32_t dtype, std::uint64_t cols, std::uint64_t* bytes);

// Bytes of a contiguous (rows, cols) matrix; false as above.
bool weight_matrix_bytes(std::int32_t dtype, std::uint64_t rows, std::uint64_t cols, std::uint64_t* bytes);

}  // namespace kv
