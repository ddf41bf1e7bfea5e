import type { LoadOptions, ModelRunner } from '@kvasir/domain';
import { openModel } from '@kvasir/models';
import { type Backend, SUITE_LIMITS } from '../../../native-runner/test/conformance/modes.ts';
import { createCpuModelLoader } from '../../src/index.ts';

export { DEFAULT_MODE, ORACLE_MODE } from '../../../native-runner/test/conformance/modes.ts';

/** Loads a model file on the CPU with a poisoned pool: whatever is read before it was written shows up as NaN. */
export async function loadOnCpu(path: string, options: Partial<LoadOptions> = {}): Promise<ModelRunner> {
  const file = await openModel(path);
  return createCpuModelLoader().load(await file.descriptor(), { ...SUITE_LIMITS, numThreads: 2, ...options });
}

export const BACKEND: Backend = {
  load: loadOnCpu,
  isAvailable: true,
  hasFastMode: false,
  rounding: { label: '8-bit activations', ofQuantized: 3e-2, ofFloats: 1e-3 },
};
