import type { LoadOptions, ModelRunner } from '@kvasir/domain';
import { openModel } from '@kvasir/models';
import { type Backend, SUITE_LIMITS } from '../../../native-runner/test/conformance/modes.ts';
import { createCudaModelLoader, isCudaAvailable } from '../../src/index.ts';

export { DEFAULT_MODE, ORACLE_MODE } from '../../../native-runner/test/conformance/modes.ts';

/** Loads a model file on the device with a poisoned pool: whatever is read before it was written shows up as NaN. */
export async function loadOnCuda(path: string, options: Partial<LoadOptions> = {}): Promise<ModelRunner> {
  const file = await openModel(path);
  return createCudaModelLoader().load(await file.descriptor(), { ...SUITE_LIMITS, numThreads: 0, ...options });
}

export const BACKEND: Backend = {
  load: loadOnCuda,
  isAvailable: isCudaAvailable(),
  hasFastMode: true,
  rounding: { label: '16-bit operands', ofQuantized: 1e-2, ofFloats: 3e-3 },
};
