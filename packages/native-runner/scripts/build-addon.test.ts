import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { buildAddon } from './build-addon.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-build-addon-'));
afterAll(() => rmSync(scratch, { recursive: true }));

// A CMake project that is not built from C++ but copies an addon that is there, so that a build takes a second.
const options = {
  projectDirectory: path.join(scratch, 'project'),
  outputDirectory: path.join(scratch, 'out'),
  nativeDirectory: path.join(scratch, 'native'),
  sources: ['abi', 'one.c'],
  backend: 'pretend',
};
const write = (file: string, text: string): void => {
  mkdirSync(path.dirname(path.join(scratch, file)), { recursive: true });
  writeFileSync(path.join(scratch, file), text);
};

beforeEach(() => {
  rmSync(options.outputDirectory, { recursive: true, force: true });
  write('project/package.json', '{ "binary": { "napi_versions": [8] } }');
  for (const name of ['cmake-js', 'node-addon-api', 'node-api-headers']) {
    write(`project/node_modules/${name}/package.json`, '{ "version": "1.0.0" }');
  }
  // cmake-js, played by a script: writes down how it was called, and an "addon" when it is told to build.
  write(
    'project/node_modules/cmake-js/bin/cmake-js',
    `const fs = require('node:fs');
     const [command, ...rest] = process.argv.slice(2);
     fs.appendFileSync(${JSON.stringify(path.join(scratch, 'calls'))}, command + ' ');
     if (fs.existsSync(${JSON.stringify(path.join(scratch, 'fail'))})) { console.log('error: one.c:1'); process.exit(1); }
     if (command === 'build') {
       const out = rest[rest.indexOf('-O') + 1];
       fs.mkdirSync(out + '/Release', { recursive: true });
       fs.copyFileSync(${JSON.stringify(path.join(scratch, 'addon.node'))}, out + '/Release/kvasir_pretend.node');
     }`,
  );
  write('project/CMakeLists.txt', '');
  write('native/abi/kvasir_abi.h', '1');
  write('native/one.c', '1');
  // Not loadable by itself: marked as sanitized so that the check of loading is left to its users.
  write('addon.node', '__asan_init');
  write('calls', '');
  rmSync(path.join(scratch, 'fail'), { force: true });
});

const calls = (): string[] => readFileSync(path.join(scratch, 'calls'), 'utf8').trim().split(' ');
const quiet = { ...options, log: () => undefined };

describe('buildAddon', () => {
  it('configures and builds once, and does nothing while nothing changes', async () => {
    expect(await buildAddon(quiet)).toMatchObject({ built: true });
    expect(await buildAddon(quiet)).toMatchObject({ built: false });
    expect(calls()).toEqual(['configure', 'build']);
  });

  it.each([
    ['a source', () => write('native/one.c', '2')],
    ['a file in a source folder', () => write('native/abi/more.h', '')],
    ['the CMake project', () => write('project/CMakeLists.txt', '# more')],
    [
      'the version of a build dependency',
      () => write('project/node_modules/cmake-js/package.json', '{"version":"2.0.0"}'),
    ],
    ['the addon, when it is gone', () => rmSync(path.join(options.outputDirectory, 'Release'), { recursive: true })],
  ])('builds again after a change of %s', async (_, change) => {
    await buildAddon(quiet);
    change();
    expect(await buildAddon(quiet)).toMatchObject({ built: true });
  });

  it('builds again for other definitions', async () => {
    await buildAddon(quiet);
    expect(await buildAddon({ ...quiet, definitions: { KVASIR_SANITIZE: 'address' } })).toMatchObject({ built: true });
  });

  it('builds once when called twice at the same time', async () => {
    const results = await Promise.all([buildAddon(quiet), buildAddon(quiet)]);
    expect(results.map(({ built }) => built).sort()).toEqual([false, true]);
  });

  it('shows the end of the output when it fails, and tries again the next time', async () => {
    write('fail', '');
    await expect(buildAddon(quiet)).rejects.toMatchObject({
      name: 'BuildError',
      message: expect.stringMatching(/error: one\.c:1[\s\S]*configuring it failed/),
    });
    rmSync(path.join(scratch, 'fail'));
    expect(await buildAddon(quiet)).toMatchObject({ built: true });
  });

  it('refuses an addon that does not load', async () => {
    write('addon.node', 'no library');
    await expect(buildAddon(quiet)).rejects.toMatchObject({ message: expect.stringContaining('does not load') });
  });

  it('names every missing tool with the packages that bring it', () => {
    const script = `
      import { buildAddon } from ${JSON.stringify(path.join(here, 'build-addon.mjs'))};
      await buildAddon(${JSON.stringify(options)}).catch((error) => console.log(error.message));`;
    const environment = { ...process.env, PATH: path.join(scratch, 'nothing'), CXX: '' };
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      env: environment,
      encoding: 'utf8',
    });
    expect(child.stdout).toContain('apt-get install cmake');
    expect(child.stdout).toContain('dnf install gcc-c++');
    expect(child.stdout).toContain('brew install cmake');
    expect(child.stdout).toContain('make or ninja');
  });
});
