// What a runner is asked for, checked, in the terms of the device.
#pragma once

#include "abi/kvasir_abi.h"
#include "cuda/runtime/device.h"
#include "cuda/runtime/device_model.h"
#include "cuda/runtime/step_plan.h"

namespace kv::cuda {

// Steps launched before the first of them is done.
inline constexpr std::size_t kStepsInFlight = 2;
// Entries of the buffer that block copies' lists go through: sources, destinations and counts.
inline constexpr std::uint32_t kBlockListEntries = 3 * 4096;

// Checks both structs before the device is asked for anything, then that there is one. Throws as kv_runner_create.
DeviceInfo checked_device(const kv_model* model, const kv_runner_options* options);

PlanLimits limits_of(const kv_model& model, const DeviceModel& loaded, const kv_runner_options& options);

}  // namespace kv::cuda
