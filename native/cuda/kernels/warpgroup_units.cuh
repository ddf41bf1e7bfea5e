// Compute capability 9.0a: the matrix units driven by four warps at once, bulk copies to shared memory, and the barriers both
// meet at. Sums over 16 columns come out with the bits of mma.sync.m16n8k16 (cuda_products_test compares them).
#pragma once

#include <type_traits>

#include "cuda/kernels/matrix_units.cuh"

namespace kv::cuda {

// ------------------------------------------------------------------------------------------------ barriers, bulk copies

__device__ inline void begin_barrier(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes begun barriers seen by bulk copies.
__device__ inline void show_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void arrive_expecting(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Until the phase of this parity has ended.
__device__ inline void wait_barrier(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred ended;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@!ended bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}
// `bytes` (a multiple of 16) from global to shared memory; they count towards the barrier's expected bytes.
__device__ inline void bulk_copy(std::uint32_t to, const void* from, int bytes, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
               "r"(bytes), "r"(barrier) : "memory");
}

// ------------------------------------------------------------------------------------------------ matrix units

// Tiles of eight tokens by 64 columns (1,024 bytes, aligned to as many), pieces of 16 bytes exchanged by the token as
// input_place has them; `stride` bytes from tile to tile. Add 2 for the next 16 columns.
__device__ inline std::uint64_t input_descriptor(std::uint32_t address, int stride) {
  return (address & 0x3ffff) >> 4 | std::uint64_t{1} << 16 | static_cast<std::uint64_t>(stride >> 4) << 32 |
         std::uint64_t{1} << 62;
}
// The registers are written before, and read behind, whatever is asked of the units next to this in the program.
template <int kCount, typename Word>
__device__ inline void pin(Word* words) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (std::is_same_v<Word, float>) {
      asm volatile("" : "+f"(words[i])::"memory");
    } else {
      asm volatile("" : "+r"(words[i])::"memory");
    }
  }
}
// Before the first multiplication that reads registers which were written since; those are pinned before it.
__device__ inline void begin_multiplying() { asm volatile("wgmma.fence.sync.aligned;"); }
__device__ inline void commit_multiplying() { asm volatile("wgmma.commit_group.sync.aligned;"); }
template <int kLeft>
__device__ inline void wait_multiplying() {
  // Only a wait for all lets memory they read be written again, and the sums be read, pinned.
  if constexpr (kLeft == 0) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  } else {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft));
  }
}

#define KV_SUMS4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define KV_SUMS8(d, i) KV_SUMS4(d, i), KV_SUMS4(d, i + 4)
#define KV_SUMS16(d, i) KV_SUMS8(d, i), KV_SUMS8(d, i + 8)
#define KV_SUMS32(d, i) KV_SUMS16(d, i), KV_SUMS16(d, i + 16)
#define KV_OPERANDS(a, b, keep) "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep)

// d (64 x 8 * kTiles of four warps) = a (64 x 16) * b (16 x 8 * kTiles), + d unless keep is 0. Begun, not ended: see above.
template <int kTiles>
__device__ inline void multiply_tiles(float* d, const std::uint32_t* a, std::uint64_t b, int keep) {
  if constexpr (kTiles == 1) {
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %9, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {"
                 "%0,%1,%2,%3"
                 "}, {%4,%5,%6,%7}, %8, keep, 1, 1, 0;\n}"
                 : KV_SUMS4(d, 0) : KV_OPERANDS(a, b, keep));
  } else if constexpr (kTiles == 2) {
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %13, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7"
                 "}, {%8,%9,%10,%11}, %12, keep, 1, 1, 0;\n}"
                 : KV_SUMS8(d, 0) : KV_OPERANDS(a, b, keep));
  } else if constexpr (kTiles == 4) {
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %21, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
                 "}, {%16,%17,%18,%19}, %20, keep, 1, 1, 0;\n}"
                 : KV_SUMS16(d, 0) : KV_OPERANDS(a, b, keep));
  } else if constexpr (kTiles == 8) {
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"
                 "%26,%27,%28,%29,%30,%31"
                 "}, {%32,%33,%34,%35}, %36, keep, 1, 1, 0;\n}"
                 : KV_SUMS32(d, 0) : KV_OPERANDS(a, b, keep));
  } else {
    static_assert(kTiles == 16);
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"
                 "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,"
                 "%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
                 "}, {%64,%65,%66,%67}, %68, keep, 1, 1, 0;\n}"
                 : KV_SUMS32(d, 0), KV_SUMS32(d, 32) : KV_OPERANDS(a, b, keep));
  }
}

#undef KV_SUMS4
#undef KV_SUMS8
#undef KV_SUMS16
#undef KV_SUMS32
#undef KV_OPERANDS

}  // namespace kv::cuda
