#include "common/dtype.h"

#include "common/formats/blocks.h"

namespace kv {

namespace {

template <typename Block>
constexpr DtypeInfo block_info(const char* name) {
  return {name, Block::kValues, sizeof(Block), true};
}

constexpr DtypeInfo kInfo[] = {
    {"F32", 1, 4, false},        // KV_F32
    {"F16", 1, 2, false},        // KV_F16
    {"BF16", 1, 2, false},       // KV_BF16
    block_info<BlockQ8_0>("Q8_0"),
    block_info<BlockQ4_0>("Q4_0"),
    block_info<BlockQ4_1>("Q4_1"),
    block_info<BlockQ5_0>("Q5_0"),
    block_info<BlockQ5_1>("Q5_1"),
    block_info<BlockQ4_K>("Q4_K"),
    block_info<BlockQ5_K>("Q5_K"),
    block_info<BlockQ6_K>("Q6_K"),
    block_info<BlockMxfp4>("MXFP4"),
};
static_assert(sizeof(kInfo) / sizeof(kInfo[0]) == KV_MXFP4 + 1, "one entry per weight dtype, in the ABI's order");

}  // namespace

const DtypeInfo* weight_dtype_info(std::int32_t dtype) {
  return dtype >= KV_F32 && dtype <= KV_MXFP4 ? &kInfo[dtype] : nullptr;
}

bool weight_row_bytes(std::int32_t dtype, std::uint64_t cols, std::uint64_t* bytes) {
  const DtypeInfo* info = weight_dtype_info(dtype);
  if (info == nullptr || cols == 0 || cols % info->block_values != 0) return false;
  const std::uint64_t blocks = cols / info->block_values;
  if (blocks > UINT64_MAX / info->block_bytes) return false;
  *bytes = blocks * info->block_bytes;
  return true;
}

bool weight_matrix_bytes(std::int32_t dtype, std::uint64_t rows, std::uint64_t cols, std::uint64_t* bytes) {
  std::uint64_t row = 0;
  if (!weight_row_bytes(dtype, cols, &row) || rows == 0 || rows > UINT64_MAX / row) return false;
  *bytes = rows * row;
  return true;
}

}  // namespace kv
