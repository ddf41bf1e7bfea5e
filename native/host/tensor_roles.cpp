#include "host/tensor_roles.h"

namespace kv {

namespace {

constexpr auto M = TensorKind::kMatrix;
constexpr auto W = TensorKind::kVector;

constexpr RoleSpec kRoles[] = {
    {KV_ROLE_TOKEN_EMBEDDING, "token embedding", M, false, true},
    {KV_ROLE_OUTPUT_NORM, "output norm", W, false, true},
    {KV_ROLE_OUTPUT, "output", M, false, false},
    {KV_ROLE_ATTN_NORM, "attention norm", W, true, true},
    {KV_ROLE_ATTN_Q, "attention q", M, true, true},
    {KV_ROLE_ATTN_K, "attention k", M, true, true},
    {KV_ROLE_ATTN_V, "attention v", M, true, true},
    {KV_ROLE_ATTN_Q_BIAS, "attention q bias", W, true, false},
    {KV_ROLE_ATTN_K_BIAS, "attention k bias", W, true, false},
    {KV_ROLE_ATTN_V_BIAS, "attention v bias", W, true, false},
    {KV_ROLE_ATTN_Q_NORM, "attention q norm", W, true, false},
    {KV_ROLE_ATTN_K_NORM, "attention k norm", W, true, false},
    {KV_ROLE_ATTN_OUTPUT, "attention output", M, true, true},
    {KV_ROLE_ATTN_OUTPUT_BIAS, "attention output bias", W, true, false},
    {KV_ROLE_ATTN_SINKS, "attention sinks", W, true, false},
    {KV_ROLE_ATTN_POST_NORM, "attention post norm", W, true, false},
    {KV_ROLE_FFN_NORM, "ffn norm", W, true, true},
    {KV_ROLE_FFN_GATE, "ffn gate", M, true, true},
    {KV_ROLE_FFN_UP, "ffn up", M, true, true},
    {KV_ROLE_FFN_DOWN, "ffn down", M, true, true},
    {KV_ROLE_FFN_GATE_BIAS, "ffn gate bias", W, true, false},
    {KV_ROLE_FFN_UP_BIAS, "ffn up bias", W, true, false},
    {KV_ROLE_FFN_DOWN_BIAS, "ffn down bias", W, true, false},
    {KV_ROLE_FFN_ROUTER, "ffn router", M, true, false},
    {KV_ROLE_FFN_ROUTER_BIAS, "ffn router bias", W, true, false},
    {KV_ROLE_FFN_POST_NORM, "ffn post norm", W, true, false},
};

}  // namespace

const RoleSpec* role_spec(std::int32_t role) {
  for (const RoleSpec& spec : kRoles) {
    if (spec.role == role) return &spec;
  }
  return nullptr;
}

const RoleSpec* all_roles(int* count) {
  *count = static_cast<int>(sizeof kRoles / sizeof kRoles[0]);
  return kRoles;
}

RoleShape role_shape(const kv_model& model, kv_role role, std::int32_t layer_index) {
  const std::uint64_t hidden = model.hidden;
  if (layer_index < 0) {
    return role == KV_ROLE_OUTPUT_NORM ? RoleShape{1, hidden} : RoleShape{model.vocab, hidden};
  }
  const kv_layer& layer = model.layers[layer_index];
  const std::uint64_t q_dim = std::uint64_t{layer.n_heads} * layer.head_dim;
  const std::uint64_t kv_dim = std::uint64_t{layer.n_kv_heads} * layer.head_dim;
  switch (role) {
    case KV_ROLE_ATTN_Q:
      return {q_dim, hidden};
    case KV_ROLE_ATTN_K:
    case KV_ROLE_ATTN_V:
      return {kv_dim, hidden};
    case KV_ROLE_ATTN_Q_BIAS:
      return {1, q_dim};
    case KV_ROLE_ATTN_K_BIAS:
    case KV_ROLE_ATTN_V_BIAS:
      return {1, kv_dim};
    case KV_ROLE_ATTN_Q_NORM:
    case KV_ROLE_ATTN_K_NORM:
      return {1, layer.head_dim};
    case KV_ROLE_ATTN_OUTPUT:
      return {hidden, q_dim};
    case KV_ROLE_ATTN_SINKS:
      return {1, layer.n_heads};
    case KV_ROLE_FFN_GATE:
    case KV_ROLE_FFN_UP:
      return {layer.ffn_dim, hidden};
    case KV_ROLE_FFN_DOWN:
      return {hidden, layer.ffn_dim};
    case KV_ROLE_FFN_GATE_BIAS:
    case KV_ROLE_FFN_UP_BIAS:
      return {1, layer.ffn_dim};
    default:
      return {1, hidden};
  }
}

}  // namespace kv
