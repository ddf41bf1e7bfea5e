import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { modelFingerprint } from '../src/loading/model-fingerprint.ts';

let directory = '';
let model = '';
let cache = '';
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'kvasir-fingerprint-'));
  model = path.join(directory, 'model.gguf');
  cache = path.join(directory, 'cache');
  writeFileSync(model, Buffer.alloc(33 * 2 ** 20, 'weights'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const nameOf = (file = model, cacheDir = cache) =>
  modelFingerprint({ format: 'gguf', files: [file], metadata: new Map() } as never, cacheDir);
const known = () => JSON.parse(readFileSync(path.join(cache, 'fingerprints.json'), 'utf8')) as Record<string, string>;

async function flip(position: number): Promise<void> {
  const handle = await open(model, 'r+');
  const byte = new Uint8Array(1);
  await handle.read(byte, 0, 1, position);
  await handle.write(Uint8Array.of((byte[0] as number) ^ 1), 0, 1, position);
  await handle.close();
}

describe('a model’s fingerprint', () => {
  it('is another for a bit flipped anywhere, also where the file’s times are put back', async () => {
    const names = new Set([await nameOf()]);
    const time = new Date(1_700_000_000_000);
    utimesSync(model, time, time);
    names.add(await nameOf());
    expect(names.size).toBe(1);
    for (const position of [0, 16 * 2 ** 20 - 1, 16 * 2 ** 20, 33 * 2 ** 20 - 1]) {
      await flip(position);
      utimesSync(model, time, time);
      names.add(await nameOf());
    }
    expect(names.size).toBe(5);
  });

  it('is the same for a file that was moved or copied, and says nothing of its name', async () => {
    const first = await nameOf();
    const moved = path.join(directory, 'other.gguf');
    renameSync(model, moved);
    copyFileSync(moved, model);
    expect(await nameOf(moved)).toBe(first);
    expect(await nameOf(model)).toBe(first);
  });

  it('is remembered: what is known of a file is believed, not computed', async () => {
    await nameOf();
    const [identity] = Object.keys(known());
    writeFileSync(path.join(cache, 'fingerprints.json'), JSON.stringify({ [identity as string]: 'ab'.repeat(32) }));
    const remembered = await nameOf();
    rmSync(path.join(cache, 'fingerprints.json'));
    expect(await nameOf()).not.toBe(remembered);
  });

  it('costs a hash where the memory of it is damaged or cannot be kept', async () => {
    const first = await nameOf();
    for (const damage of ['', '{', '[]', 'null', '{"a":3}', '{"x":"short"}']) {
      writeFileSync(path.join(cache, 'fingerprints.json'), damage);
      expect(await nameOf()).toBe(first);
    }
    const blocked = path.join(directory, 'blocked');
    writeFileSync(blocked, '');
    expect(await nameOf(model, blocked)).toBe(first);
    mkdirSync(path.join(directory, 'read-only'));
    chmodSync(path.join(directory, 'read-only'), 0o500);
    expect(await nameOf(model, path.join(directory, 'read-only'))).toBe(first);
  });

  it('covers the configuration beside the weights, and the order of shards', async () => {
    const other = path.join(directory, 'b');
    writeFileSync(other, 'b');
    const name = (files: string[], metadata: object) =>
      modelFingerprint({ format: 'safetensors', files, metadata } as never, cache);
    const names = [
      await name([model, other], { rope: 1 }),
      await name([model, other], { rope: 2 }),
      await name([other, model], { rope: 1 }),
      await name([model], { rope: 1 }),
    ];
    expect(new Set(names).size).toBe(4);
  });
});
