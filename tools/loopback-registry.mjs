// A package registry on the loopback interface, for tests that install packed tarballs into an empty project: it serves
// those, and everything else from what pnpm has installed for the workspace. So the tests need no network, and npm
// resolves versions as it would from a real registry.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { root } from '../scripts/lib/toolchain.mjs';

/**
 * @param tarballs files by package name, as `packAll` returns them
 * @returns its address, for npm's --registry, and what closes it
 */
export async function startLoopbackRegistry(tarballs) {
  const packages = new Map([...installedPackages(), ...packedPackages(tarballs)]);
  const server = createServer((request, response) => {
    const name = decodeURIComponent((request.url ?? '/').slice(1));
    const [, packageName = '', version = ''] = /^-\/(.+)\/-\/(.+)\.tgz$/.exec(name) ?? [];
    if (packageName !== '')
      return send(response, packages.get(packageName)?.get(version)?.tarball(), 'application/gzip');
    const versions = packages.get(name);
    const address = `http://127.0.0.1:${server.address().port}`;
    return send(
      response,
      versions && Buffer.from(JSON.stringify(packument(name, versions, address))),
      'application/json',
    );
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

// ------------------------------------------------------------------------------------------------ what is served

/** name → version → { manifest, tarball() } of everything in pnpm's virtual store. */
function installedPackages() {
  const store = path.join(root, 'node_modules', '.pnpm');
  const packages = new Map();
  for (const entry of readdirSync(store)) {
    const [, scope, name] = /^(?:(@[^+]+)\+)?([^@]+)@\d/.exec(entry) ?? [];
    if (name === undefined) continue;
    const fullName = scope === undefined ? name : `${scope}/${name}`;
    const folder = path.join(store, entry, 'node_modules', fullName);
    const file = path.join(folder, 'package.json');
    if (!existsSync(file)) continue;
    const manifest = JSON.parse(readFileSync(file, 'utf8'));
    const versions = packages.get(fullName) ?? new Map();
    versions.set(manifest.version, { manifest, tarball: () => tar(folder) });
    packages.set(fullName, versions);
  }
  return packages;
}

function packedPackages(tarballs) {
  return [...tarballs].map(([name, file]) => {
    const manifest = JSON.parse(mustRun('tar', ['-xzOf', file, 'package/package.json']).toString('utf8'));
    return [name, new Map([[manifest.version, { manifest, tarball: () => readFileSync(file) }]])];
  });
}

function packument(name, versions, address) {
  const entries = [...versions].map(([version, { manifest }]) => [
    version,
    {
      ...manifest,
      hasInstallScript: ['preinstall', 'install', 'postinstall'].some((script) => manifest.scripts?.[script]),
      dist: { tarball: `${address}/-/${name}/-/${version}.tgz` },
    },
  ]);
  return { name, 'dist-tags': { latest: entries.at(-1)?.[0] }, versions: Object.fromEntries(entries) };
}

function tar(folder) {
  return mustRun('tar', ['-czf', '-', '--exclude', 'node_modules', '-C', path.dirname(folder), path.basename(folder)]);
}

function mustRun(command, args) {
  const result = spawnSync(command, args, { maxBuffer: 1 << 28 });
  if (result.status === 0) return result.stdout;
  throw new Error(`\`${[command, ...args].join(' ')}\` failed: ${result.stderr ?? result.error}`);
}

function send(response, body, type) {
  response.writeHead(body === undefined ? 404 : 200, { 'content-type': type });
  response.end(body ?? '{}');
}
