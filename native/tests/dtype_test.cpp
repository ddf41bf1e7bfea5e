#include "common/dtype.h"

#include "tests/check.h"

KV_TEST("a row's bytes are whole blocks") {
  std::uint64_t bytes = 0;
  KV_CHECK(kv::weight_row_bytes(KV_F32, 3, &bytes) && bytes == 12);
  KV_CHECK(kv::weight_row_bytes(KV_BF16, 3, &bytes) && bytes == 6);
  KV_CHECK(kv::weight_row_bytes(KV_Q8_0, 64, &bytes) && bytes == 68);
  KV_CHECK(kv::weight_row_bytes(KV_Q4_K, 512, &bytes) && bytes == 288);
  KV_CHECK(kv::weight_row_bytes(KV_Q6_K, 256, &bytes) && bytes == 210);
  KV_CHECK(kv::weight_row_bytes(KV_MXFP4, 32, &bytes) && bytes == 17);
  KV_CHECK(kv::weight_matrix_bytes(KV_Q5_1, 10, 32, &bytes) && bytes == 240);
}

KV_TEST("partial blocks, empty shapes, overflow and dtypes of the KV pool are refused and change nothing") {
  std::uint64_t bytes = 7;
  KV_CHECK(!kv::weight_row_bytes(KV_Q8_0, 33, &bytes));
  KV_CHECK(!kv::weight_row_bytes(KV_Q4_K, 128, &bytes));
  KV_CHECK(!kv::weight_row_bytes(KV_F32, 0, &bytes));
  KV_CHECK(!kv::weight_matrix_bytes(KV_F32, 0, 16, &bytes));
  KV_CHECK(!kv::weight_row_bytes(KV_F32, UINT64_MAX / 2, &bytes));
  KV_CHECK(!kv::weight_matrix_bytes(KV_F16, UINT64_MAX / 4, 16, &bytes));
  for (int dtype : {-1, static_cast<int>(KV_Q8), static_cast<int>(KV_Q4), 14, 1 << 30}) {
    KV_CHECK(!kv::weight_row_bytes(dtype, 256, &bytes));
    KV_CHECK(kv::weight_dtype_info(dtype) == nullptr);
  }
  KV_CHECK(bytes == 7);
}

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
