import { describe, expect, it } from 'vitest';
import { checkAbi, readAbiTexts } from './check-abi.ts';

const texts = readAbiTexts();

describe('the addon face', () => {
  it('agrees with the C waist in constants, structs and signatures', () => {
    expect(checkAbi(texts)).toEqual([]);
  });

  it.each([
    ['a renumbered status', 'KV_CANCELLED = 8', 'KV_CANCELLED = 10', 'KV_CANCELLED: the header has 10'],
    ['a new dtype', 'KV_MXFP4 = 11,', 'KV_MXFP4 = 11, KV_NVFP4 = 14,', 'KV_NVFP4: the header has 14'],
    ['another ABI version', 'KV_ABI_VERSION 2u', 'KV_ABI_VERSION 3u', 'KV_ABI_VERSION: the header has 3'],
    ['a new field', 'float min_p;', 'float min_p; float typical_p;', 'kv_sampler.typicalP: in the header'],
    ['a field that has gone', 'float logit_scale;', '', 'AddonModel.logitScale: in the face'],
    [
      'a new struct',
      'typedef struct kv_memory {',
      'typedef struct kv_extra { int a; } kv_extra; typedef struct kv_memory {',
      'kv_extra: a struct',
    ],
    [
      'a new argument',
      'const kv_batch* batch, kv_step_callback',
      'const kv_batch* batch, int flags, kv_step_callback',
      'kv_runner_submit: the header has',
    ],
  ])('is found to differ after %s', (_, from, to, problem) => {
    const header = texts.header.replace(from, to);
    expect(header).not.toBe(texts.header);
    expect(checkAbi({ ...texts, header })).toEqual([expect.stringContaining(problem)]);
  });
});
