import { defineConfig } from 'vitest/config';

// Three tiers by file name: unit tests run side by side; native tests load an addon and so run one fork at a time;
// e2e tests start real servers or install packages. Workspace packages resolve to their TypeScript sources.
const conditions = ['kvasir-source', 'node', 'import', 'module', 'default'];
const shared = {
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
};
const places = '{packages,apps,tools,experiments}/**';

export default defineConfig({
  test: {
    coverage: {
      provider: 'v8',
      include: ['packages/domain/src/**', 'packages/engine/src/**'],
      exclude: ['**/*.test.ts'],
    },
    projects: [
      {
        ...shared,
        test: {
          name: 'unit',
          include: [`${places}/*.test.ts`],
          exclude: ['**/node_modules/**', '**/dist/**', '**/*.native.test.ts', '**/*.e2e.test.ts'],
          testTimeout: 60_000,
        },
      },
      {
        ...shared,
        test: {
          name: 'native',
          include: [`${places}/*.native.test.ts`],
          exclude: ['**/node_modules/**', '**/dist/**'],
          pool: 'forks',
          maxWorkers: 1,
          testTimeout: 300_000,
          hookTimeout: 120_000,
        },
      },
      {
        ...shared,
        test: {
          name: 'e2e',
          include: [`${places}/*.e2e.test.ts`],
          exclude: ['**/node_modules/**', '**/dist/**'],
          pool: 'forks',
          maxWorkers: 1,
          testTimeout: 600_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
