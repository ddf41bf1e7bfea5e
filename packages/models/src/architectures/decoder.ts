import {
  KvasirError,
  type Activation,
  type LayerDescriptor,
  type ModelDescriptor,
  type RopeDescriptor,
  type TensorRole,
} from '@kvasir/domain';
import type { ModelFile } from '../model-file.ts';
import type { DecoderParameters } from './decoder-parameters.ts';
import type { TensorNames } from './tensor-names.ts';
import { TensorTable } from './tensor-table.ts';

/** Whether a family's layers have certain tensors: always, never, or as the file has it. */
export type Presence = 'required' | 'optional' | 'absent';

/**
 * What the families of plain decoders differ in: pre-norm attention and a gated feed-forward, full attention, one RoPE.
 * A family with windows, experts or other norms writes its own layers and takes the tensors the same way.
 */
export interface DecoderPlan {
  readonly architecture: string;
  readonly parameters: DecoderParameters;
  readonly rope: RopeDescriptor;
  readonly names: TensorNames;
  readonly activation: Activation;
  readonly tiedEmbeddings: boolean;
  readonly queryKeyValueBias: Presence;
  readonly attentionOutputBias: Presence;
  readonly feedForwardBias: Presence;
  /** RMSNorm of each query and key head before RoPE. */
  readonly headNorm: Presence;
}

/**
 * Builds the descriptor of a plain decoder and checks every tensor's shape against the hyperparameters.
 * @throws KvasirError `file-corrupt`, `unsupported-format`, `unsupported-model`
 */
export function buildDecoder(file: ModelFile, plan: DecoderPlan): ModelDescriptor {
  const { parameters, names, tiedEmbeddings } = plan;
  const { hiddenSize } = parameters;
  const table = new TensorTable(file);
  const vocabularySize = vocabularySizeOf(file, table, plan);
  table.take(names.model['token-embedding'], 'token-embedding', null, [vocabularySize, hiddenSize]);
  table.take(names.model['output-norm'], 'output-norm', null, [hiddenSize]);
  if (!tiedEmbeddings) table.take(names.model.output, 'output', null, [vocabularySize, hiddenSize]);
  const layers = parameters.numHeads.map((_, layer) => takeLayer(table, plan, layer));
  table.ignore((name) => names.isRedundant(name) || (tiedEmbeddings && name === names.model.output));
  return {
    architecture: plan.architecture,
    name: file.name,
    vocabularySize,
    hiddenSize,
    contextLength: parameters.contextLength,
    normEpsilon: parameters.normEpsilon,
    embeddingScale: 1,
    logitScale: 1,
    tiedEmbeddings,
    layers,
    ropes: [plan.rope],
    tensors: table.finish(),
    files: file.files,
  };
}

// -------------------------------------------------------------------------------------------------------------- pieces

function vocabularySizeOf(file: ModelFile, table: TensorTable, plan: DecoderPlan): number {
  const name = plan.names.model['token-embedding'];
  const rows = table.get(name)?.shape[0];
  const { vocabularySize } = plan.parameters;
  if (rows !== undefined && vocabularySize !== null && rows !== vocabularySize) {
    throw new KvasirError(
      'file-corrupt',
      `${file.path}: tensor ${JSON.stringify(name)}: expected ${vocabularySize} rows, one a token of the vocabulary, found ${rows}`,
      { facts: { path: file.path, tensor: name, vocabularySize, rows } },
    );
  }
  return rows ?? vocabularySize ?? 0;
}

function takeLayer(table: TensorTable, plan: DecoderPlan, layer: number): LayerDescriptor {
  const { hiddenSize, headDim } = plan.parameters;
  const numHeads = plan.parameters.numHeads[layer] as number;
  const numKvHeads = plan.parameters.numKvHeads[layer] as number;
  const size = plan.parameters.feedForwardSize[layer] as number;
  const take = (role: TensorRole, ...shape: number[]) => table.take(plan.names.layer(layer, role), role, layer, shape);
  const takeWhere = (presence: Presence, roles: readonly [TensorRole, number][]) => {
    // One of a set decides for all: a file with a bias on Q alone is broken, not special.
    const isPresent =
      presence === 'required' ||
      (presence === 'optional' && roles.some(([role]) => table.has(plan.names.layer(layer, role))));
    if (isPresent) for (const [role, length] of roles) take(role, length);
  };

  take('attn-norm', hiddenSize);
  takeQueryKeyValue(table, plan, layer, numHeads * headDim, numKvHeads * headDim);
  takeWhere(plan.queryKeyValueBias, [
    ['attn-q-bias', numHeads * headDim],
    ['attn-k-bias', numKvHeads * headDim],
    ['attn-v-bias', numKvHeads * headDim],
  ]);
  takeWhere(plan.headNorm, [
    ['attn-q-norm', headDim],
    ['attn-k-norm', headDim],
  ]);
  take('attn-output', hiddenSize, numHeads * headDim);
  takeWhere(plan.attentionOutputBias, [['attn-output-bias', hiddenSize]]);
  take('ffn-norm', hiddenSize);
  takeGateAndUp(table, plan, layer, size);
  take('ffn-down', hiddenSize, size);
  takeWhere(plan.feedForwardBias, [
    ['ffn-gate-bias', size],
    ['ffn-up-bias', size],
    ['ffn-down-bias', hiddenSize],
  ]);
  return {
    group: 0,
    numHeads,
    numKvHeads,
    headDim,
    attention: { kind: 'full' },
    rope: 0,
    softmaxScale: 1 / Math.sqrt(headDim),
    feedForward: { kind: 'dense', size, activation: plan.activation },
  };
}

/** Three tensors, or one whose rows are Q, then K, then V. */
function takeQueryKeyValue(table: TensorTable, plan: DecoderPlan, layer: number, q: number, kv: number): void {
  const { names, parameters } = plan;
  const slices = [
    { role: 'attn-q', rows: q },
    { role: 'attn-k', rows: kv },
    { role: 'attn-v', rows: kv },
  ] as const;
  const fused = names.fusedQueryKeyValue(layer);
  if (table.has(fused)) table.takeRows(fused, layer, slices, [parameters.hiddenSize]);
  else {
    for (const { role, rows } of slices)
      table.take(names.layer(layer, role), role, layer, [rows, parameters.hiddenSize]);
  }
}

/** Two tensors, or one whose rows are gate, then up. */
function takeGateAndUp(table: TensorTable, plan: DecoderPlan, layer: number, size: number): void {
  const { names, parameters } = plan;
  const fused = names.fusedGateUp(layer);
  const slices = [
    { role: 'ffn-gate', rows: size },
    { role: 'ffn-up', rows: size },
  ] as const;
  if (table.has(fused)) table.takeRows(fused, layer, slices, [parameters.hiddenSize]);
  else {
    for (const { role, rows } of slices)
      table.take(names.layer(layer, role), role, layer, [rows, parameters.hiddenSize]);
  }
}
