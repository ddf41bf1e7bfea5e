// The one composition root: the only file that imports tsyringe and names concrete adapters.
import 'reflect-metadata';
import { crc32 } from 'node:zlib';
import { cpuBackendInfo, createCpuModelLoader } from '@kvasir/adapter-cpu';
import { createCudaModelLoader, isCudaAvailable } from '@kvasir/adapter-cuda';
import { openColdTier } from '@kvasir/block-store-fs';
import { BLOCK_TOKENS, isKvasirError, KvasirError, ModelCacheSpec } from '@kvasir/domain';
import type { AgentArchive, ChatTemplate, Clock, ModelLoader, ModelRunner, Narrator } from '@kvasir/domain';
import { AgentService, BatchEngine, TextIndex } from '@kvasir/engine';
import { openModel, type DownloadProgress, type ModelFile } from '@kvasir/models';
import { createChatTemplate, createTokenizer, type TextTokenizer } from '@kvasir/tokenizer';
import type { Logger } from 'pino';
import {
  container as rootContainer,
  instanceCachingFactory,
  type DependencyContainer,
  type InjectionToken,
} from 'tsyringe';
import type { Config } from './config.ts';
import { PromptEncoder } from './generation/prompt-encoder.ts';
import type { ServedModel } from './generation/served-model.ts';
import { prepareMemory } from './loading/open-memory.ts';
import { mostBlocksPerSequence, planPool } from './loading/plan-pool.ts';
import { modelName, resolveModel } from './loading/resolve-model.ts';
import { vocabularyDirectory } from './loading/vocabulary-directory.ts';
import { createLog, createNarrator } from './log.ts';

/** Told of long work, so that a terminal can show it. */
export interface ProgressHooks {
  readonly onDownload: (progress: DownloadProgress) => void;
  readonly onLoad: (bytesDone: number, bytesTotal: number) => void;
}

/** What one command needs of the engine; 0 and absent leave it to the configuration. */
export interface EngineNeeds {
  /** Size of the pool where the configuration names none. */
  readonly poolTokens?: number;
  readonly contextLength?: number;
  readonly maxBatchSequences?: number;
  /** Whether KV outlives the request that computed it; default: no, so that a measurement repeats its work. */
  readonly keepsKv?: boolean;
}

export interface LoadedModel {
  readonly engine: BatchEngine;
  readonly runner: ModelRunner;
  /** Agents that outlive the process; null without a place for them. */
  readonly archive: AgentArchive | null;
  readonly contextLength: number;
  /** Starts what the first restore would wait for. */
  warmUp(): void;
}

/** Everything a command asks of one configured model, made when it is first asked for. */
export interface Kvasir {
  readonly log: Logger;
  modelFile(): Promise<ModelFile>;
  tokenizer(): Promise<TextTokenizer>;
  /** null where the model has none; one that does not parse rejects every render with the reason. */
  chatTemplate(): Promise<ChatTemplate | null>;
  /** The first call decides the pool's size. */
  load(needs?: EngineNeeds): Promise<LoadedModel>;
  /** Opens the agents' directory too, unless told not to or configured without one. */
  serve(options?: { readonly keepsAgents?: boolean }): Promise<ServedModel>;
  /** Disposes what was made, newest first. Idempotent. */
  dispose(): Promise<void>;
}

const LOG: InjectionToken<Logger> = Symbol('Logger');
const CLOCK: InjectionToken<Clock> = Symbol('Clock');
const NARRATOR: InjectionToken<Narrator> = Symbol('Narrator');
const MODEL_LOADER: InjectionToken<ModelLoader> = Symbol('ModelLoader');
const MODEL_PATH: InjectionToken<Promise<string>> = Symbol('ModelPath');
const MODEL_FILE: InjectionToken<Promise<ModelFile>> = Symbol('ModelFile');
const TOKENIZER: InjectionToken<Promise<TextTokenizer>> = Symbol('Tokenizer');
const CHAT_TEMPLATE: InjectionToken<Promise<ChatTemplate | null>> = Symbol('ChatTemplate');
const ENGINE_NEEDS: InjectionToken<EngineNeeds> = Symbol('EngineNeeds');
const LOADED_MODEL: InjectionToken<Promise<LoadedModel>> = Symbol('LoadedModel');

const SILENT: ProgressHooks = { onDownload: () => undefined, onLoad: () => undefined };

type Disposer = () => Promise<void>;

export function createKvasir(config: Config, hooks: ProgressHooks = SILENT): Kvasir {
  const container = rootContainer.createChildContainer();
  const disposers: Disposer[] = [];
  const pending: Promise<unknown>[] = [];
  const singleton = <T>(token: InjectionToken<T>, make: (container: DependencyContainer) => T) =>
    container.register(token, { useFactory: instanceCachingFactory(make) });

  const later = <T>(token: InjectionToken<Promise<T>>, make: (container: DependencyContainer) => Promise<T>) =>
    singleton(token, (c) => {
      const made = make(c);
      pending.push(made);
      return made;
    });

  singleton(LOG, () => createLog(config.logLevel));
  singleton(CLOCK, () => ({
    now: () => performance.now(),
    turn: () => new Promise<void>((resolve) => setImmediate(resolve)),
  }));
  singleton(NARRATOR, (c) => createNarrator(c.resolve(LOG)));
  singleton(MODEL_LOADER, () => createLoader(config.backend));
  later(MODEL_PATH, () => resolveModel(config, hooks.onDownload));
  later(MODEL_FILE, async (c) => openModel(await c.resolve(MODEL_PATH)));
  later(TOKENIZER, async (c) => {
    const directory = vocabularyDirectory(await c.resolve(MODEL_PATH));
    const tokenizer = await createTokenizer(
      directory === null ? (await c.resolve(MODEL_FILE)).tokenizerSource : { kind: 'huggingface', directory },
    );
    disposers.push(() => tokenizer.dispose());
    return tokenizer;
  });
  later(CHAT_TEMPLATE, async (c) => {
    const file = await c.resolve(MODEL_FILE);
    if (file.chatTemplates.size === 0) return null;
    try {
      const template = await createChatTemplate(file.tokenizerSource);
      disposers.push(() => template.dispose());
      return template;
    } catch (error) {
      if (!isKvasirError(error)) throw error;
      // Prompts without a template still work, so the model is served; a chat is told why it cannot be rendered.
      c.resolve(LOG).warn({ code: error.code, reason: error.message }, 'chat template cannot be used');
      return { render: () => Promise.reject(error) };
    }
  });
  later(LOADED_MODEL, (c) => loadModel(c, config, hooks, disposers));

  const load = (needs: EngineNeeds = {}) => {
    if (!container.isRegistered(ENGINE_NEEDS)) container.register(ENGINE_NEEDS, { useValue: needs });
    return container.resolve(LOADED_MODEL);
  };
  let disposing: Promise<void> | null = null;
  return {
    log: container.resolve(LOG),
    modelFile: () => container.resolve(MODEL_FILE),
    tokenizer: () => container.resolve(TOKENIZER),
    chatTemplate: () => container.resolve(CHAT_TEMPLATE),
    load,
    serve: ({ keepsAgents = true } = {}) =>
      assembleServedModel(container, () => load({ keepsKv: keepsAgents }), config, disposers),
    dispose: () => (disposing ??= disposeAll(pending, disposers)),
  };
}

/** The loader of the backend asked for; `auto` takes the best one that was built and has its device. */
function createLoader(backend: Config['backend']): ModelLoader {
  if (backend === 'cuda' || (backend === 'auto' && isCudaAvailable())) return createCudaModelLoader();
  if (backend === 'auto' || backend === 'cpu') return createCpuModelLoader();
  throw new KvasirError(
    'backend-unavailable',
    `backend: expected an installed one, found ${backend}, whose package @kvasir/adapter-${backend} is not part of this version; use --backend cpu`,
    { facts: { backend } },
  );
}

/** What this machine's processor can run; for reports. */
export function describeCpu(): ReturnType<typeof cpuBackendInfo> {
  return cpuBackendInfo();
}

async function loadModel(
  container: DependencyContainer,
  config: Config,
  hooks: ProgressHooks,
  disposers: Disposer[],
): Promise<LoadedModel> {
  const needs = container.resolve(ENGINE_NEEDS);
  const narrator = container.resolve(NARRATOR);
  const memory =
    needs.keepsKv === true ? prepareMemory(container.resolve(MODEL_FILE), config, narrator, openColdTier) : null;
  if (memory !== null) disposers.push(() => memory.close());
  const descriptor = (await container.resolve(MODEL_FILE)).descriptor();
  const maxBatchSequences = needs.maxBatchSequences ?? config.maxBatchSequences;
  const isSized = config.poolTokens > 0 || config.poolBytes > 0;
  const contextLength = config.contextLength > 0 ? config.contextLength : (needs.contextLength ?? 0);
  const options = {
    kvDType: config.kvDType,
    activations: config.activations,
    maxBatchTokens: config.maxBatchTokens,
    maxBatchSequences,
    numThreads: config.threads,
    instructionPath: config.instructionPath,
  };
  const loader = container.resolve(MODEL_LOADER);
  const device = await loader.planMemory(descriptor, {
    ...options,
    numBlocks: ModelCacheSpec.fromDescriptor(descriptor, config.kvDType).groups.map(() => 1),
    maxBlocksPerSequence: mostBlocksPerSequence(descriptor, contextLength),
  });
  const plan = planPool(descriptor, {
    kvDType: config.kvDType,
    contextLength,
    poolTokens: isSized ? config.poolTokens : (needs.poolTokens ?? 0),
    poolBytes: config.poolBytes,
    availableBytes: process.availableMemory(),
    device,
    gpuMemoryUtilization: config.gpuMemoryUtilization,
  });
  const runner = await loader.load(descriptor, {
    ...options,
    numBlocks: plan.numBlocks,
    maxBlocksPerSequence: plan.maxBlocksPerSequence,
    onProgress: hooks.onLoad,
  });
  disposers.push(() => runner.dispose());
  narrator.narrate({
    level: 'info',
    name: 'model-loaded',
    facts: {
      ...runner.memory(),
      poolTokens: (plan.numBlocks[0] ?? 0) * BLOCK_TOKENS,
      deviceBytes: device?.totalBytes ?? 0,
    },
  });
  const kept = memory === null ? null : await memory.complete(runner.info);
  const engine = new BatchEngine(
    { runner, clock: container.resolve(CLOCK), narrator },
    {
      contextLength: plan.contextLength,
      maxQueue: config.maxQueue,
      ...(config.prefillChunkTokens > 0 ? { prefillChunkTokens: config.prefillChunkTokens } : {}),
      ...(kept === null ? {} : { cache: kept.cache }),
    },
  );
  disposers.push(() => engine.dispose());
  return {
    engine,
    runner,
    archive: kept?.archive ?? null,
    contextLength: plan.contextLength,
    warmUp: () => kept?.warmUp(),
  };
}

async function assembleServedModel(
  container: DependencyContainer,
  load: () => Promise<LoadedModel>,
  config: Config,
  disposers: Disposer[],
): Promise<ServedModel> {
  const [file, tokenizer, loaded] = await Promise.all([
    container.resolve(MODEL_FILE),
    container.resolve(TOKENIZER),
    load(),
  ]);
  const { info } = loaded.runner;
  const agents = await openAgents(container, loaded, disposers);
  return {
    name: modelName(file.path),
    created: Math.floor(Date.now() / 1000),
    facts: {
      architecture: file.architecture,
      contextLength: loaded.contextLength,
      vocabularySize: info.vocabularySize,
      backend: info.backend,
      device: info.device,
      numericsId: info.numericsId,
      kvDType: config.kvDType,
    },
    tokenizer,
    template: file.chatTemplates.size === 0 ? null : parsedLater(container),
    prompts: new PromptEncoder(tokenizer, new TextIndex({ maxBytes: config.textIndexBytes })),
    engine: loaded.engine,
    agents,
    stopIds: [...new Set([...tokenizer.info.stopIds, ...file.generationConfig.eosTokenIds])],
    memory: () => loaded.runner.memory(),
    countAgents: () => agents?.size ?? 0,
    warmUp: () => {
      // One after the other: threads that start together take a small machine from the first requests.
      const parsing = file.chatTemplates.size > 0 ? parseTemplate(container) : Promise.resolve();
      void parsing.then(() => loaded.warmUp());
    },
    flush: async (signal) => loaded.engine.agentMemory?.flush(signal),
  };
}

/** Parsing takes a thread of its own tens of milliseconds, which nothing but a chat has to wait for. */
function parsedLater(container: DependencyContainer): ChatTemplate {
  return {
    render: async (conversation, options) => {
      const template = await container.resolve(CHAT_TEMPLATE);
      if (template === null)
        throw new KvasirError('internal', 'chat template: expected the one of the file, found none');
      return template.render(conversation, options);
    },
  };
}

async function parseTemplate(container: DependencyContainer): Promise<void> {
  try {
    await container.resolve(CHAT_TEMPLATE);
  } catch (error) {
    container.resolve(LOG).error({ err: error }, 'chat template could not be parsed');
  }
}

/** The agents whose KV the engine keeps; null without a place for them. */
async function openAgents(
  container: DependencyContainer,
  { engine, runner, archive }: LoadedModel,
  disposers: Disposer[],
): Promise<AgentService | null> {
  const memory = engine.agentMemory;
  if (archive === null || memory === null) return null;
  const agents = await AgentService.open({
    archive,
    memory,
    narrator: container.resolve(NARRATOR),
    now: () => Date.now(),
    checksum: crc32,
    vocabularySize: runner.info.vocabularySize,
  });
  disposers.push(() => agents.close());
  return agents;
}

/** What is still being made when a neighbour fails is waited for: half-made, it could not be disposed. */
async function disposeAll(pending: readonly Promise<unknown>[], disposers: readonly Disposer[]): Promise<void> {
  await Promise.allSettled(pending);
  for (const dispose of [...disposers].reverse()) await dispose();
}
