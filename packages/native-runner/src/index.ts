export type {
  AddonBackendInfo,
  AddonBatch,
  AddonError,
  AddonLayer,
  AddonMemory,
  AddonMemoryPlan,
  AddonModel,
  AddonRope,
  AddonRunnerOptions,
  AddonSampler,
  AddonStepResult,
  AddonTensor,
  KvasirAddon,
  OnCompletion,
  OnProgress,
  RunnerHandle,
} from './addon.ts';
export { toAddonModel, toAddonOptions } from './model-to-addon.ts';
export { createNativeModelLoader } from './native-model-loader.ts';
export { NativeModelRunner } from './native-model-runner.ts';
export { describeBackend, openAddon } from './open-addon.ts';
export type { BackendInfo } from './open-addon.ts';
export { toKvasirError } from './status-error.ts';
