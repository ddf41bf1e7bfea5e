import { isKvasirError } from '@kvasir/domain';
import { expect, it } from 'vitest';
import { createCudaModelLoader, isCudaAvailable } from './index.ts';

it.skipIf(isCudaAvailable())('a machine without the addon or a device gets backend-unavailable and what to do', () => {
  let found: unknown = null;
  try {
    createCudaModelLoader();
  } catch (error) {
    found = error;
  }
  expect(isKvasirError(found) && found.code).toBe('backend-unavailable');
  expect((found as Error).message).toMatch(/build it with|no CUDA device|no usable CUDA device/);
});
