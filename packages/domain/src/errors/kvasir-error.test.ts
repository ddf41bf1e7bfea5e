import { describe, expect, it } from 'vitest';
import { KvasirError, isKvasirError } from './kvasir-error.ts';

describe('KvasirError', () => {
  it('carries a code, facts and a cause', () => {
    const cause = new Error('below');
    const error = new KvasirError('file-corrupt', 'expected x, found y', { facts: { offset: 3 }, cause });
    expect(error).toMatchObject({ name: 'KvasirError', code: 'file-corrupt', facts: { offset: 3 }, cause });
    expect(new KvasirError('internal', 'x').facts).toEqual({});
    expect('cause' in new KvasirError('internal', 'x')).toBe(false);
  });

  it('is known by its shape, also from another copy of the package', () => {
    const foreign = Object.assign(new Error('x'), { name: 'KvasirError', code: 'aborted' });
    expect([isKvasirError(new KvasirError('aborted', 'x')), isKvasirError(foreign)]).toEqual([true, true]);
    const unknownCode = Object.assign(new Error('x'), { name: 'KvasirError', code: 'no-such-code' });
    expect([new Error('x'), unknownCode, { name: 'KvasirError', code: 'aborted' }, null].map(isKvasirError)).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
});
