import { describeAgentArchive, describeBlockStore } from '@kvasir/port-contracts';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { openColdTier, type ColdTier, type ColdTierOptions } from '../src/index.ts';

const directories: string[] = [];
afterAll(async () => {
  for (const directory of directories) await rm(directory, { recursive: true });
});

const opened = new WeakMap<object, { readonly directory: string; readonly tier: ColdTier }>();
async function open(options: Omit<ColdTierOptions, 'directory'> = {}, directory?: string): Promise<ColdTier> {
  const place = directory ?? (await mkdtemp(join(tmpdir(), 'kvasir-store-')));
  if (directory === undefined) directories.push(place);
  const tier = await openColdTier({ ...options, directory: place });
  opened.set(tier.agents, { directory: place, tier });
  return tier;
}

describeBlockStore('FsBlockStore', {
  open: async (budgets) => {
    const tier = await open(budgets);
    const close = tier.blocks.close.bind(tier.blocks);
    // The suite closes the store; the directory is given up with it.
    return Object.assign(tier.blocks, {
      close: async () => {
        await close();
        await tier.agents.close();
      },
    });
  },
});

describeAgentArchive('FsAgentArchive', {
  open,
  reopen: async ({ agents }) => {
    const { directory, tier } = opened.get(agents) as { directory: string; tier: ColdTier };
    await tier.close();
    return open({}, directory);
  },
});
