// The arrows of the architecture: apps/server → engine → domain ← adapters. Severity error: CI fails on a violation.
const only = (name, from, allowed, comment) => ({
  name,
  comment,
  severity: 'error',
  from: { path: `^packages/${from}/src`, pathNot: '\\.test\\.ts$' },
  to: { path: '^(packages|apps)/', pathNot: `^packages/(${[from, ...allowed].join('|')})/` },
});

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no-unresolved', severity: 'error', from: {}, to: { couldNotResolve: true } },
    {
      name: 'domain-is-a-leaf',
      comment: 'The domain imports nothing: no packages, no node:, no npm.',
      severity: 'error',
      from: { path: '^packages/domain/src', pathNot: '\\.test\\.ts$' },
      to: { pathNot: '^packages/domain/src' },
    },
    only('engine-knows-the-domain-only', 'engine', ['domain']),
    {
      name: 'engine-uses-no-platform',
      severity: 'error',
      from: { path: '^packages/engine/src', pathNot: '\\.test\\.ts$' },
      to: { dependencyTypes: ['core'] },
    },
    only('models-knows-the-domain-only', 'models', ['domain']),
    only('tokenizer-knows-the-domain-only', 'tokenizer', ['domain']),
    only('native-runner-knows-the-domain-only', 'native-runner', ['domain']),
    only('adapter-cpu-knows-the-runner', 'adapter-cpu', ['domain', 'native-runner']),
    only('block-store-fs-knows-the-domain-only', 'block-store-fs', ['domain']),
    only('adapter-cuda-knows-the-runner', 'adapter-cuda', ['domain', 'native-runner']),
    only('adapter-fake-knows-the-domain-only', 'adapter-fake', ['domain']),
    only('port-contracts-knows-the-domain-only', 'port-contracts', ['domain', 'adapter-fake']),
    only('reference-stands-alone', 'reference', [], 'The oracle shares no code with what it judges.'),
    {
      name: 'one-composition-root',
      comment: 'Only the container names concrete adapters.',
      severity: 'error',
      from: { path: '^apps/server/src', pathNot: '(container\\.ts|\\.test\\.ts)$' },
      to: { path: '^packages/(adapter|block-store)-' },
    },
    {
      name: 'tsyringe-in-one-file',
      severity: 'error',
      from: { path: '^(apps|packages)/', pathNot: '^apps/server/src/container\\.ts$' },
      to: { path: 'node_modules/(tsyringe|reflect-metadata)' },
    },
    {
      name: 'tests-stay-in-tests',
      severity: 'error',
      from: {
        path: '^(apps|packages)/[^/]+/src',
        pathNot: '(\\.test\\.ts$|^packages/(adapter-fake|port-contracts|reference)/)',
      },
      to: { path: '^packages/(adapter-fake|port-contracts|reference)/' },
    },
    {
      name: 'nobody-imports-experiments',
      severity: 'error',
      from: { path: '^(apps|packages)/' },
      to: { path: '^experiments/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(/dist/|/\\.native/|/test/|\\.test\\.ts$)' },
    tsPreCompilationDeps: true,
    parser: 'swc',
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['kvasir-source', 'import', 'node', 'default', 'types'],
      extensions: ['.ts', '.mjs', '.js', '.d.ts'],
    },
  },
};
