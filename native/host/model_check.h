// check_model: everything about a descriptor that can be wrong without looking into a file.
#pragma once

#include "abi/kvasir_abi.h"

namespace kv {

// Throws KV_INVALID_ARGUMENT for a descriptor that breaks the contract and KV_UNSUPPORTED for one this backend has no
// kernel for. Afterwards every count, index, extent and byte size in it may be used without further checks; offsets
// still have to be held against the files' sizes.
void check_model(const kv_model* model);

// The same for the options; needs a checked model. KV_Q8 and KV_Q4 pools are for backends that say they hold them, and
// for models whose heads divide into whole groups.
void check_options(const kv_model& model, const kv_runner_options* options, bool holds_quantized_kv = false);

}  // namespace kv
