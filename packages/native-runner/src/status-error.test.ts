import { describe, expect, it } from 'vitest';
import { toKvasirError } from './status-error.ts';
import { KV_STATUS } from './waist-constants.ts';

const addonError = (status: number): Error => Object.assign(new Error('expected x, found y'), { status });

describe('toKvasirError', () => {
  it('gives every status of the waist a code of its own kind', () => {
    const codes = Object.entries(KV_STATUS)
      .filter(([, status]) => status !== KV_STATUS.KV_OK)
      .map(([name, status]) => [name, toKvasirError(addonError(status), 'running').code]);
    expect(Object.fromEntries(codes)).toEqual({
      KV_INVALID_ARGUMENT: 'invalid-argument',
      KV_UNSUPPORTED: 'unsupported-model',
      KV_OUT_OF_MEMORY: 'out-of-memory',
      KV_FILE_UNREADABLE: 'file-unreadable',
      KV_FILE_TRUNCATED: 'file-truncated',
      KV_DEVICE_UNAVAILABLE: 'backend-unavailable',
      KV_DEVICE_LOST: 'device-lost',
      KV_CANCELLED: 'disposed',
      KV_INTERNAL: 'internal',
    });
  });

  it('calls a cancelled load aborted', () => {
    expect(toKvasirError(addonError(KV_STATUS.KV_CANCELLED), 'loading').code).toBe('aborted');
  });

  it('keeps the message, the status and the cause', () => {
    const cause = addonError(3);
    expect(toKvasirError(cause, 'running')).toMatchObject({
      message: 'expected x, found y',
      facts: { status: 3 },
      cause,
    });
  });

  it('takes a status of tomorrow, and what is no addon error, for internal', () => {
    expect(toKvasirError(addonError(77), 'running').code).toBe('internal');
    expect(toKvasirError(new TypeError('x is not a function'), 'running')).toMatchObject({
      code: 'internal',
      message: expect.stringContaining('x is not a function'),
    });
  });
});
