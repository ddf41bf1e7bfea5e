import { createHash } from 'node:crypto';
import { isKvasirError, KV_FORMATS, KvasirError } from '@kvasir/domain';
import type { AgentArchive, BlockStore, CacheIdentity, Narrator, RunnerInfo } from '@kvasir/domain';
import type { CacheOptions } from '@kvasir/engine';
import type { ModelFile } from '@kvasir/models';
import type { Config } from '../config.ts';
import { modelFingerprint } from './model-fingerprint.ts';

/** Of the canonical payload; counts up when its meaning changes. */
const LAYOUT_VERSION = '1';
/** Of the host memory that is free, where the pool lies elsewhere. */
const WARM_SHARE = 0.25;
const MOST_WARM_BYTES = 16 * 2 ** 30;

/** Opens the files of the cold tier; which ones is the composition root's choice. */
export type OpenColdTier = (options: {
  readonly directory: string;
  readonly keptBytes: number;
  readonly writtenBytes: number;
  readonly narrator: Narrator;
}) => Promise<{
  readonly blocks: BlockStore;
  readonly agents: AgentArchive;
  startReaders(): void;
  close(): Promise<void>;
}>;

/** What an engine keeps KV with, and whose it is. */
export interface OpenMemory {
  readonly cache: CacheOptions;
  /** null: nothing outlives the process. */
  readonly archive: AgentArchive | null;
  /** Starts what the first restore would wait for. */
  warmUp(): void;
}

/** What was begun beside the reading and loading of the model. */
export interface MemoryInPreparation {
  /** @throws KvasirError `cache-locked`, `disk-full`, `disk-unwritable` */
  complete(info: RunnerInfo): Promise<OpenMemory>;
  /** Also where it was never completed. */
  close(): Promise<void>;
}

/**
 * Begins to open the tiers below the pool at once: their files need no model, and a directory of many agents takes as long
 * to open as a model to read. Without a `memoryDir` prefixes are kept while the process lives, and there are no agents.
 */
export function prepareMemory(
  file: Promise<ModelFile>,
  config: Config,
  narrator: Narrator,
  openColdTier: OpenColdTier,
): MemoryInPreparation {
  const { memoryDir, cacheDir, restore, minBlocksPerAgent } = config;
  const { coldBytes: keptBytes, coldWriteBytes: writtenBytes } = config;
  const opening =
    memoryDir === null
      ? Promise.resolve(null)
      : withAdvice(() => openColdTier({ directory: memoryDir, keptBytes, writtenBytes, narrator }));
  const naming = memoryDir === null ? Promise.resolve('this process') : fingerprintOf(file, cacheDir);
  const settled = Promise.allSettled([opening, naming]);
  return {
    complete: async (info) => {
      const [tier, fingerprint] = await Promise.all([opening, naming]);
      const identity: CacheIdentity = {
        modelFingerprint: fingerprint,
        kvDType: KV_FORMATS[config.kvDType],
        layoutVersion: LAYOUT_VERSION,
        numericsId: info.numericsId,
      };
      const cache = {
        identity,
        sha256: (text: string, bytes: Uint8Array) => createHash('sha256').update(text).update(bytes).digest('hex'),
        warmBytes: config.warmBytes ?? defaultWarmBytes(info.backend),
        restore,
        minBlocksPerAgent,
      };
      if (tier === null) return { cache, archive: null, warmUp: () => undefined };
      const { agents, blocks } = tier;
      return { cache: { ...cache, cold: { blocks, agents } }, archive: agents, warmUp: () => tier.startReaders() };
    },
    close: async () => {
      const [opened] = await settled;
      if (opened.status === 'fulfilled') await opened.value?.close();
    },
  };
}

async function fingerprintOf(file: Promise<ModelFile>, cacheDir: string): Promise<string> {
  return modelFingerprint(await file, cacheDir);
}

/** A directory that cannot be used is the user's to change; how, only this side of it knows. */
async function withAdvice<Value>(open: () => Promise<Value>): Promise<Value> {
  try {
    return await open();
  } catch (error) {
    if (!isKvasirError(error) || !/^(cache-locked|disk-full|disk-unwritable)$/.test(error.code)) throw error;
    const advice = 'name another with --memory-dir, or none to keep no agents';
    throw new KvasirError(error.code, `${error.message}; ${advice}`, { facts: error.facts, cause: error });
  }
}

/** Where the pool is host memory itself a second copy there would gain nothing. */
function defaultWarmBytes(backend: string): number {
  if (backend === 'cpu') return 0;
  return Math.min(MOST_WARM_BYTES, Math.floor(process.availableMemory() * WARM_SHARE));
}
