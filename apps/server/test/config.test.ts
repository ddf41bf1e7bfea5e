import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConfigError, loadConfig, type ConfigSources } from '../src/config.ts';
import { SETTING_NAMES, toFlag, toVariable } from '../src/settings.ts';

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'kvasir-config-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const load = (environment: Record<string, string> = {}, sources: Partial<ConfigSources> = {}) =>
  loadConfig({ flags: {}, file: null, ...sources }, environment, directory);

function problemsOf(run: () => unknown): readonly string[] {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  throw new Error('expected a ConfigError, found none');
}

describe('loadConfig', () => {
  it('binds to loopback and runs the bundled model by default', () => {
    expect(load()).toMatchObject({
      host: '127.0.0.1',
      port: 8080,
      model: null,
      backend: 'auto',
      kvDType: 'f16',
      apiKey: null,
    });
  });

  it('lets the command line win over variables, those over the file, that over defaults', () => {
    writeFileSync(path.join(directory, 'kvasir.config.json'), JSON.stringify({ port: 1, maxQueue: 2, threads: 3 }));
    const config = load(
      { KVASIR_PORT: '4', KVASIR_THREADS: '5' },
      { flags: { port: '6' }, defaults: { maxBatchTokens: 7, maxQueue: 8 } },
    );
    expect(config).toMatchObject({ port: 6, threads: 5, maxQueue: 2, maxBatchTokens: 7 });
  });

  it('takes every setting from a variable, a flag and the file', () => {
    const values: Record<string, string> = {
      backend: 'cpu',
      activations: 'float',
      kvDType: 'f32',
      logLevel: 'warn',
      hfEndpoint: 'http://hub.example',
      apiKey: 'sesame-open',
      apiKeys: 'acme=sesame-acme,umbrella=sesame=umbrella,acme=sesame-two',
      poolBytes: '0',
      restore: 'never',
    };
    for (const name of SETTING_NAMES) {
      const value = values[name] ?? '1';
      const expected = load({}, { flags: { [name]: value } });
      expect(load({ [toVariable(name)]: value })).toEqual(expected);
      writeFileSync(path.join(directory, 'one.json'), JSON.stringify({ [name]: value }));
      expect(load({}, { file: 'one.json' })).toEqual(expected);
      expect(load({ KVASIR_CONFIG: 'one.json' })).toEqual(expected);
    }
  });

  it('names settings alike everywhere', () => {
    expect([toFlag('kvDType'), toVariable('kvDType')]).toEqual(['kv-dtype', 'KVASIR_KV_DTYPE']);
    expect([toFlag('hfEndpoint'), toVariable('hfEndpoint')]).toEqual(['hf-endpoint', 'KVASIR_HF_ENDPOINT']);
  });

  it('lists every problem with where it came from', () => {
    writeFileSync(path.join(directory, 'kvasir.config.json'), JSON.stringify({ prot: 1, threads: 'many' }));
    const problems = problemsOf(() => load({ KVASIR_PROT: '1', KVASIR_PORT: '70000' }, { flags: { backend: 'gpu' } }));
    expect(problems).toEqual([
      expect.stringMatching(/^kvasir\.config\.json: prot: expected a known setting/),
      expect.stringMatching(/^KVASIR_PROT: expected a known variable/),
      expect.stringMatching(/^KVASIR_PORT: .*65535.*, found "70000"$/),
      expect.stringMatching(/^--backend: .*"cpu".*, found "gpu"$/),
      expect.stringMatching(/^kvasir\.config\.json: threads: .*number.*, found "many"$/),
    ]);
  });

  it('reads the keys of tenants', () => {
    const apiKeys = { acme: ['sesame-acme', 'sesame-two'], umbrella: ['sesame=umbrella'] };
    const text = 'acme=sesame-acme, umbrella=sesame=umbrella,acme=sesame-two';
    expect(load({ KVASIR_API_KEYS: text }).apiKeys).toEqual(apiKeys);
    const file = { apiKeys: { acme: ['sesame-acme', 'sesame-two'], umbrella: 'sesame=umbrella' } };
    writeFileSync(path.join(directory, 'kvasir.config.json'), JSON.stringify(file));
    expect(load({}).apiKeys).toEqual(apiKeys);
    rmSync(path.join(directory, 'kvasir.config.json'));
    for (const wrong of ['acme', 'acme=short', '../x=sesame-acme', 'a=sesame-acme,b=sesame-acme', '=sesame-acme']) {
      const problems = problemsOf(() => load({ KVASIR_API_KEYS: wrong }));
      expect(problems).toEqual([expect.stringMatching(/^KVASIR_API_KEYS: expected /)]);
      expect(problems.join()).not.toMatch(/sesame|short/);
    }
    const both = problemsOf(() => load({ KVASIR_API_KEYS: 'a=sesame-acme', KVASIR_API_KEY: 'sesame-acme' }));
    expect(both).toEqual([expect.stringMatching(/^apiKey and apiKeys: /)]);
  });

  it('keeps agents beside what it downloads, elsewhere, or not at all', () => {
    expect(load({ KVASIR_CACHE_DIR: '/c' }).memoryDir).toBe('/c/memory');
    expect(load({ KVASIR_CACHE_DIR: '/c', KVASIR_MEMORY_DIR: '/m' }).memoryDir).toBe('/m');
    expect(load({ KVASIR_MEMORY_DIR: 'none' }).memoryDir).toBeNull();
  });

  it('never shows a secret', () => {
    expect(problemsOf(() => load({ KVASIR_API_KEY: 'short' })).join()).not.toContain('short');
  });

  it('refuses a file that is missing, malformed or no object', () => {
    expect(problemsOf(() => load({}, { file: 'absent.json' }))[0]).toContain('ENOENT');
    writeFileSync(path.join(directory, 'bad.json'), '{');
    expect(problemsOf(() => load({}, { file: 'bad.json' }))[0]).toContain('expected JSON');
    writeFileSync(path.join(directory, 'list.json'), '[]');
    expect(problemsOf(() => load({}, { file: 'list.json' }))[0]).toContain('expected a JSON object');
  });

  it('reads sizes with units and refuses two pool sizes', () => {
    expect(load({ KVASIR_POOL_BYTES: '1.5GiB' }).poolBytes).toBe(1.5 * 2 ** 30);
    expect(load({ KVASIR_POOL_BYTES: '20MB' }).poolBytes).toBe(2e7);
    expect(problemsOf(() => load({ KVASIR_POOL_BYTES: '5 apples' }))).toHaveLength(1);
    expect(problemsOf(() => load({ KVASIR_POOL_BYTES: '1GiB', KVASIR_POOL_TOKENS: '4096' }))[0]).toContain(
      'found both',
    );
  });

  it('reads the Hub’s own variables below ours', () => {
    const hub = { HF_ENDPOINT: 'http://mirror.example', HF_TOKEN: 'hf_1' };
    expect(load(hub)).toMatchObject({ hfEndpoint: 'http://mirror.example', hfToken: 'hf_1' });
    expect(load({ ...hub, KVASIR_HF_TOKEN: 'hf_2' }).hfToken).toBe('hf_2');
    expect(load().hfEndpoint).toBe('https://huggingface.co');
  });

  it('leaves variables of the repository’s tests alone', () => {
    expect(load({ KVASIR_SHARED: '/x', KVASIR_TEST_MODEL: '/y' }).model).toBeNull();
  });

  it('keeps downloads in the cache folder of the user', () => {
    expect(load({ XDG_CACHE_HOME: '/cache' }).cacheDir).toBe('/cache/kvasir');
    expect(load({ KVASIR_CACHE_DIR: 'here' }).cacheDir).toBe(path.join(directory, 'here'));
  });
});
