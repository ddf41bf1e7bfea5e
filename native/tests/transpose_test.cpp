// Transposes of 2-byte values, of whole and of ragged extents, within wider rows.
#include <vector>

#include "cpu/runtime/transpose.h"
#include "tests/check.h"

KV_TEST("every element of a matrix of 2-byte values finds its place, and nothing beside it is written") {
  for (const std::uint32_t rows : {1u, 7u, 8u, 33u, 256u}) {
    for (const std::uint32_t cols : {1u, 8u, 12u, 64u}) {
      const std::uint32_t in_width = cols + 3;
      const std::uint32_t out_width = rows + 5;
      std::vector<std::uint16_t> in(std::size_t{rows} * in_width);
      std::vector<std::uint16_t> out(std::size_t{cols} * out_width, 0xffff);
      for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<std::uint16_t>(i % 65'521);
      kv::cpu::transpose_2_bytes(reinterpret_cast<const std::byte*>(in.data()), in_width * 2,
                                 reinterpret_cast<std::byte*>(out.data()), out_width * 2, rows, cols);
      bool is_right = true;
      for (std::uint32_t c = 0; c < cols; ++c) {
        for (std::uint32_t r = 0; r < out_width; ++r) {
          const std::uint16_t expected = r < rows ? in[std::size_t{r} * in_width + c] : std::uint16_t{0xffff};
          is_right = is_right && out[std::size_t{c} * out_width + r] == expected;
        }
      }
      KV_CHECK(is_right);
    }
  }
}

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
