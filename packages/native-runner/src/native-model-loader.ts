import { attentionParityTokens, KV_FORMATS, KvasirError, ModelCacheSpec } from '@kvasir/domain';
import type { LoadOptions, MemoryPlan, ModelDescriptor, ModelLoader, ModelRunner } from '@kvasir/domain';
import type { KvasirAddon, RunnerHandle } from './addon.ts';
import { numGroups, toAddonModel, toAddonOptions } from './model-to-addon.ts';
import { NativeModelRunner } from './native-model-runner.ts';
import { toKvasirError } from './status-error.ts';
import { UnsettledCalls } from './unsettled-calls.ts';
import { KV_ABI_VERSION } from './waist-constants.ts';

/** Sampler state is kept for sequences that are admitted but not in this step, too: preempted, or between two chunks. */
const SAMPLER_SLOTS_PER_SEQUENCE = 2;

/** One step runs while the next waits: what hides JavaScript's time. More would only delay aborts. */
const MAX_STEPS_IN_FLIGHT = 2;

/**
 * A ModelLoader over an addon. Any number of runners may be loaded, also at once; they share nothing.
 * @throws KvasirError `backend-unavailable` when the addon was built against another waist
 */
export function createNativeModelLoader(addon: KvasirAddon): ModelLoader {
  if (addon.abiVersion !== KV_ABI_VERSION) {
    throw new KvasirError(
      'backend-unavailable',
      `the addon: expected ABI version ${KV_ABI_VERSION}, found ${addon.abiVersion}; build it again`,
    );
  }
  return {
    planMemory: async (model, options) => planMemory(addon, model, options),
    load: (model, options) => load(addon, model, options),
  };
}

function planMemory(addon: KvasirAddon, model: ModelDescriptor, options: LoadOptions): MemoryPlan | null {
  checkGroups(model, options);
  try {
    const plan = addon.planMemory(toAddonModel(model), toAddonOptions(options, numSamplerSlots(options)));
    return plan.totalBytes === 0 ? null : plan;
  } catch (error) {
    throw toKvasirError(error, 'loading');
  }
}

const numSamplerSlots = (options: LoadOptions): number => options.maxBatchSequences * SAMPLER_SLOTS_PER_SEQUENCE;

function checkGroups(model: ModelDescriptor, options: LoadOptions): void {
  const groups = numGroups(model);
  if (options.numBlocks.length === groups) return;
  throw new KvasirError(
    'invalid-argument',
    `numBlocks: expected one entry for each of ${groups} layer groups, found ${options.numBlocks.length}`,
  );
}

async function load(addon: KvasirAddon, model: ModelDescriptor, options: LoadOptions): Promise<ModelRunner> {
  refuseWhenAborted(options);
  checkGroups(model, options);
  const cacheSpec = ModelCacheSpec.fromDescriptor(model, options.kvDType);
  const calls = new UnsettledCalls();
  try {
    const handle = await open(addon, model, options, calls);
    const backend = addon.backendInfo();
    const runner = new NativeModelRunner(addon, handle, calls, {
      backend: backend.name,
      device: backend.device,
      numericsId: `${addon.numericsId(handle)}/kv-${KV_FORMATS[options.kvDType]}`,
      instructionPath: addon.instructionPath(handle),
      vocabularySize: model.vocabularySize,
      cacheSpec,
      numBlocks: [...options.numBlocks],
      maxBatchTokens: options.maxBatchTokens,
      maxBatchSequences: options.maxBatchSequences,
      maxBlocksPerSequence: options.maxBlocksPerSequence,
      numSamplerSlots: numSamplerSlots(options),
      maxStepsInFlight: MAX_STEPS_IN_FLIGHT,
      attentionParityTokens: attentionParityTokens(model),
    });
    // Loading may have been faster than the wish to cancel it.
    if (options.signal?.aborted === true) await runner.dispose();
    refuseWhenAborted(options);
    return runner;
  } catch (error) {
    if (error instanceof KvasirError) throw error;
    throw toKvasirError(error, 'loading');
  }
}

async function open(
  addon: KvasirAddon,
  model: ModelDescriptor,
  options: LoadOptions,
  calls: UnsettledCalls,
): Promise<RunnerHandle> {
  let handle: RunnerHandle | null = null;
  const opened = calls.start((ticket) => {
    handle = addon.openRunner(
      ticket,
      toAddonModel(model),
      toAddonOptions(options, numSamplerSlots(options)),
      calls.settle,
      (bytesDone, bytesTotal) => options.onProgress?.(bytesDone, bytesTotal),
    );
  });
  if (handle === null) throw new KvasirError('internal', 'openRunner: expected a handle, found none');
  const opening: RunnerHandle = handle;
  const cancel = (): void => addon.cancelOpening(opening);
  options.signal?.addEventListener('abort', cancel);
  try {
    await opened;
  } finally {
    options.signal?.removeEventListener('abort', cancel);
  }
  return opening;
}

function refuseWhenAborted(options: LoadOptions): void {
  if (options.signal?.aborted !== true) return;
  throw new KvasirError('aborted', 'load: cancelled by its signal', { cause: options.signal.reason });
}
