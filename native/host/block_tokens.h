// Tokens of a KV block, the same on every backend: payloads move between them.
#pragma once

namespace kv {

inline constexpr int kBlockTokens = 256;

}  // namespace kv
