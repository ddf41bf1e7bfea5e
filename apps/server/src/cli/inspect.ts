import type { Command } from 'commander';
import { BLOCK_TOKENS, isKvasirError, ModelCacheSpec } from '@kvasir/domain';
import type { KvDType, ModelDescriptor } from '@kvasir/domain';
import type { ModelFile } from '@kvasir/models';
import type { Kvasir } from '../container.ts';
import type { SettingName } from '../settings.ts';
import { SETTINGS } from '../settings.ts';
import { addSettings, FILE_SETTINGS, readConfig, UsageError, withKvasir } from './command.ts';

const INSPECT_SETTINGS: readonly SettingName[] = [...FILE_SETTINGS, 'kvDType'];

export function addInspectCommand(program: Command): void {
  const command = program
    .command('inspect [model]')
    .description('Show what a model file holds and what of it fits into memory')
    .option('--memory <bytes>', 'memory to plan for, as 8GiB (default: what is free now)')
    .option('--json', 'one JSON object on standard output');
  addSettings(command, INSPECT_SETTINGS).action(async (model: string | undefined, options: Record<string, unknown>) => {
    if (model !== undefined && options['model'] !== undefined) {
      throw new UsageError('model: expected it once, found an argument and --model');
    }
    const memory = parseMemory(options['memory']);
    const config = readConfig({ ...options, model: model ?? options['model'] }, INSPECT_SETTINGS);
    await withKvasir(config, async (kvasir) => {
      const report = await inspect(kvasir, config.kvDType, memory);
      process.stdout.write(options['json'] === true ? `${JSON.stringify(report, null, 2)}\n` : toText(report));
    });
  });
}

function parseMemory(value: unknown): number {
  if (value === undefined) return process.availableMemory();
  const parsed = SETTINGS.poolBytes.schema.safeParse(value);
  if (!parsed.success) throw new UsageError(`--memory: expected bytes, as 8GiB, found ${String(value)}`);
  return parsed.data;
}

export interface InspectReport {
  readonly path: string;
  readonly name: string;
  readonly format: string;
  readonly architecture: string;
  readonly files: readonly { readonly path: string; readonly bytes: number }[];
  readonly fileBytes: number;
  readonly parameters: number;
  readonly dtypes: readonly { readonly dtype: string; readonly tensors: number; readonly bytes: number }[];
  readonly tokenizer: TokenizerReport | { readonly error: string };
  readonly chatTemplates: readonly string[];
  readonly endTokenIds: readonly number[];
  /** null where this version cannot run it; `error` says why. */
  readonly model: ModelReport | null;
  readonly error: string | null;
}

interface TokenizerReport {
  readonly vocabularySize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly stopIds: readonly number[];
  readonly addBos: boolean;
}

interface ModelReport {
  readonly contextLength: number;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly vocabularySize: number;
  readonly heads: readonly number[];
  readonly kvHeads: readonly number[];
  readonly headDim: readonly number[];
  readonly feedForwardSize: readonly number[];
  readonly tiedEmbeddings: boolean;
  readonly ropeStyles: readonly string[];
  readonly kvDType: KvDType;
  readonly blockTokens: number;
  readonly bytesPerBlock: number;
  readonly bytesPerToken: number;
  readonly fits: FitReport;
}

interface FitReport {
  readonly memoryBytes: number;
  readonly weightBytes: number;
  readonly blocks: number;
  readonly tokens: number;
  /** Sequences of the model's full context. */
  readonly fullContexts: number;
}

async function inspect(kvasir: Kvasir, kvDType: KvDType, memoryBytes: number): Promise<InspectReport> {
  const file = await kvasir.modelFile();
  const fileBytes = file.fileSizes.reduce((sum, bytes) => sum + bytes, 0);
  const { model, error } = describe(file, kvDType, memoryBytes);
  return {
    path: file.path,
    name: file.name,
    format: file.format,
    architecture: file.architecture,
    files: file.files.map((path, index) => ({ path, bytes: file.fileSizes[index] ?? 0 })),
    fileBytes,
    parameters: file.tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
    dtypes: toHistogram(file),
    tokenizer: await describeTokenizer(kvasir),
    chatTemplates: [...file.chatTemplates.keys()],
    endTokenIds: file.generationConfig.eosTokenIds,
    model,
    error,
  };
}

/** A file this version cannot run is still worth looking at: why is part of the report. */
function describe(file: ModelFile, kvDType: KvDType, memoryBytes: number): Pick<InspectReport, 'model' | 'error'> {
  try {
    const descriptor = file.descriptor();
    const weightBytes = file.tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
    return { model: describeModel(descriptor, kvDType, memoryBytes, weightBytes), error: null };
  } catch (error) {
    if (!isKvasirError(error)) throw error;
    return { model: null, error: `${error.code}: ${error.message}` };
  }
}

async function describeTokenizer(kvasir: Kvasir): Promise<InspectReport['tokenizer']> {
  try {
    const { vocabularySize, bosId, eosId, stopIds, addBos } = (await kvasir.tokenizer()).info;
    return { vocabularySize, bosId, eosId, stopIds, addBos };
  } catch (error) {
    if (!isKvasirError(error)) throw error;
    return { error: `${error.code}: ${error.message}` };
  }
}

function describeModel(
  model: ModelDescriptor,
  kvDType: KvDType,
  memoryBytes: number,
  weightBytes: number,
): ModelReport {
  const spec = ModelCacheSpec.fromDescriptor(model, kvDType);
  const bytesPerBlock = spec.groups.reduce((sum, { group }) => sum + spec.bytesPerBlock(group), 0);
  const blocks = Math.max(0, Math.floor((memoryBytes - weightBytes) / bytesPerBlock));
  const distinct = <T>(values: readonly T[]): T[] => [...new Set(values)];
  return {
    contextLength: model.contextLength,
    layers: model.layers.length,
    hiddenSize: model.hiddenSize,
    vocabularySize: model.vocabularySize,
    heads: distinct(model.layers.map((layer) => layer.numHeads)),
    kvHeads: distinct(model.layers.map((layer) => layer.numKvHeads)),
    headDim: distinct(model.layers.map((layer) => layer.headDim)),
    feedForwardSize: distinct(model.layers.map((layer) => layer.feedForward.size)),
    tiedEmbeddings: model.tiedEmbeddings,
    ropeStyles: distinct(model.ropes.map((rope) => rope.style)),
    kvDType,
    blockTokens: BLOCK_TOKENS,
    bytesPerBlock,
    bytesPerToken: bytesPerBlock / BLOCK_TOKENS,
    fits: {
      memoryBytes,
      weightBytes,
      blocks,
      tokens: blocks * BLOCK_TOKENS,
      fullContexts: Math.floor((blocks * BLOCK_TOKENS) / model.contextLength),
    },
  };
}

function toHistogram(file: ModelFile): InspectReport['dtypes'] {
  const counts = new Map<string, { dtype: string; tensors: number; bytes: number }>();
  for (const { dtype, byteLength } of file.tensors) {
    const name: string = dtype;
    const entry = counts.get(name) ?? { dtype: name, tensors: 0, bytes: 0 };
    entry.tensors += 1;
    entry.bytes += byteLength;
    counts.set(name, entry);
  }
  return [...counts.values()].sort((a, b) => b.bytes - a.bytes);
}

function toText(report: InspectReport): string {
  const rows: [string, string][] = [
    ['file', `${report.path} (${report.format}, ${report.files.length} file(s), ${toSize(report.fileBytes)})`],
    ['name', report.name],
    ['architecture', report.architecture],
    ['parameters', report.parameters.toLocaleString('en')],
    ['dtypes', report.dtypes.map(({ dtype, tensors, bytes }) => `${dtype} ×${tensors} (${toSize(bytes)})`).join(', ')],
    ['tokenizer', tokenizerText(report.tokenizer)],
    ['chat templates', report.chatTemplates.length === 0 ? 'none' : report.chatTemplates.join(', ')],
    ...modelRows(report.model),
    ...(report.error === null ? [] : [['cannot run', report.error] as [string, string]]),
  ];
  const width = Math.max(...rows.map(([label]) => label.length));
  return `${rows.map(([label, text]) => `${label.padEnd(width)}  ${text}`).join('\n')}\n`;
}

function tokenizerText(tokenizer: InspectReport['tokenizer']): string {
  if ('error' in tokenizer) return tokenizer.error;
  const { vocabularySize, bosId, eosId, stopIds } = tokenizer;
  return `${vocabularySize} tokens, BOS ${bosId ?? 'none'}, EOS ${eosId ?? 'none'}, ends at ${stopIds.join(' ') || 'none'}`;
}

function modelRows(model: ModelReport | null): [string, string][] {
  if (model === null) return [];
  const { fits } = model;
  return [
    ['context', `${model.contextLength} tokens`],
    [
      'shape',
      `${model.layers} layers, hidden ${model.hiddenSize}, feed-forward ${model.feedForwardSize.join('/')}, heads ${model.heads.join('/')} (KV ${model.kvHeads.join('/')}) of ${model.headDim.join('/')}, rope ${model.ropeStyles.join('/') || 'none'}${model.tiedEmbeddings ? ', tied embeddings' : ''}`,
    ],
    [
      'KV',
      `${toSize(model.bytesPerBlock)} a block of ${model.blockTokens} tokens, ${model.bytesPerToken} bytes a token (${model.kvDType})`,
    ],
    [
      'fits',
      `into ${toSize(fits.memoryBytes)}: weights ${toSize(fits.weightBytes)} and ${fits.blocks} blocks (${fits.tokens} tokens, ${fits.fullContexts} full contexts)`,
    ],
  ];
}

function toSize(bytes: number): string {
  const unit = [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ].find(([, size]) => bytes >= (size as number)) as [string, number] | undefined;
  return unit === undefined ? `${bytes} B` : `${(bytes / unit[1]).toFixed(2)} ${unit[0]}`;
}
