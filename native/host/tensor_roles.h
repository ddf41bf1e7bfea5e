// Which tensors a model consists of, and the shape each must have.
#pragma once

#include <cstdint>

#include "abi/kvasir_abi.h"

namespace kv {

enum class TensorKind {
  kMatrix,  // a linear layer's weight: any weight dtype, used as stored
  kVector,  // norms, biases, sinks: F32, F16 or BF16, copied to f32 at load
};

struct RoleSpec {
  kv_role role;
  const char* name;
  TensorKind kind;
  bool of_layer;   // false: belongs to the model, layer -1
  bool required;
};

// The role's description, or nullptr for a number that is none.
const RoleSpec* role_spec(std::int32_t role);

// All roles, for completeness checks.
const RoleSpec* all_roles(int* count);

// Extents (rows, cols) the descriptor's sizes ask for; a vector has one row.
struct RoleShape {
  std::uint64_t rows;
  std::uint64_t cols;
};
RoleShape role_shape(const kv_model& model, kv_role role, std::int32_t layer);

}  // namespace kv
