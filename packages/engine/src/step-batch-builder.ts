import {
  KvasirError,
  ROW_FLAGS,
  type RunnerInfo,
  type SamplerAdmission,
  type Sequence,
  type StepBatch,
} from '@kvasir/domain';
import type { EngineSettings } from './engine-options.ts';
import type { StepPlan } from './step-plan.ts';

/**
 * Turns a plan into the typed arrays that cross the waist. One set of arrays is written again for every step, which the
 * port allows: a runner copies before `submit` returns. The views handed out are kept while the shape stays the same, as
 * it does from one decoding step to the next.
 */
export class StepBatchBuilder {
  readonly #numGroups: number;
  readonly #tokenIds: Int32Array;
  readonly #positions: Int32Array;
  readonly #targetIds: Int32Array;
  readonly #cuSeqlensQ: Int32Array;
  readonly #contextLengths: Int32Array;
  readonly #inputRows: Int32Array;
  readonly #samplerSlots: Int32Array;
  readonly #outputIndexes: Int32Array;
  readonly #rowFlags: Uint8Array;
  readonly #slotMappings: Int32Array[];
  readonly #blockTables: Int32Array[];
  #view: { readonly batch: Omit<StepBatch, 'admissions'>; readonly width: number; readonly targets: boolean } | null =
    null;

  constructor(settings: EngineSettings, info: RunnerInfo) {
    const { maxBatchTokens, maxBatchSequences } = settings;
    this.#numGroups = info.cacheSpec.groups.length;
    this.#tokenIds = new Int32Array(maxBatchTokens);
    this.#positions = new Int32Array(maxBatchTokens);
    this.#targetIds = new Int32Array(maxBatchTokens);
    this.#cuSeqlensQ = new Int32Array(maxBatchSequences + 1);
    this.#contextLengths = new Int32Array(maxBatchSequences);
    this.#inputRows = new Int32Array(maxBatchSequences);
    this.#samplerSlots = new Int32Array(maxBatchSequences);
    this.#outputIndexes = new Int32Array(maxBatchSequences);
    this.#rowFlags = new Uint8Array(maxBatchSequences);
    const perGroup = (length: number): Int32Array[] =>
      Array.from({ length: this.#numGroups }, () => new Int32Array(length));
    this.#slotMappings = perGroup(maxBatchTokens);
    // Grown by the longest context seen, so that short ones do not pay for the limit.
    this.#blockTables = perGroup(maxBatchSequences);
  }

  /** @returns a batch valid until the next call */
  build(plan: StepPlan): StepBatch {
    const admissions: SamplerAdmission[] = [];
    let width = 1;
    let hasTargets = false;
    let token = 0;
    for (let row = 0; row < plan.sequences.length; row++) {
      const sequence = plan.sequences[row] as Sequence;
      const position = plan.positions[row] as number;
      const count = plan.counts[row] as number;
      const outputIndex = plan.outputIndexes[row] as number;
      this.#cuSeqlensQ[row] = token;
      this.#contextLengths[row] = position + count;
      this.#inputRows[row] = plan.inputRows[row] as number;
      this.#outputIndexes[row] = Math.max(0, outputIndex);
      this.#samplerSlots[row] = outputIndex < 0 ? -1 : (sequence.samplerSlot as number);
      this.#rowFlags[row] = rowFlags(sequence, outputIndex);
      this.#fillTokens(sequence, token, position, count, plan.inputRows[row] as number);
      if (sequence.goal.kind === 'score') hasTargets = true;
      if (outputIndex >= 0 && !sequence.isSamplerAdmitted) {
        admissions.push(admissionOf(sequence));
        sequence.isSamplerAdmitted = true;
      }
      width = Math.max(width, sequence.blocks.numBlocks);
      token += count;
    }
    this.#cuSeqlensQ[plan.sequences.length] = token;
    this.#fillTables(plan, width);
    if (hasTargets) this.#fillTargets(plan);
    return { ...this.#viewOf(token, plan.sequences.length, width, hasTargets), admissions };
  }

  #fillTokens(sequence: Sequence, token: number, position: number, count: number, inputRow: number): void {
    for (let index = 0; index < count; index++) this.#positions[token + index] = position + index;
    if (inputRow >= 0) this.#tokenIds[token] = 0;
    else {
      for (let index = 0; index < count; index++) {
        this.#tokenIds[token + index] = sequence.blocks.tokenAt(position + index);
      }
    }
    for (let group = 0; group < this.#numGroups; group++) {
      sequence.blocks.fillWriteSlots(group, this.#slotMappings[group] as Int32Array, token, position, count);
    }
  }

  #fillTables(plan: StepPlan, width: number): void {
    for (let group = 0; group < this.#numGroups; group++) {
      let tables = this.#blockTables[group] as Int32Array;
      const needed = plan.sequences.length * width;
      if (tables.length < needed) {
        tables = new Int32Array(needed * 2);
        this.#blockTables[group] = tables;
        this.#view = null;
      }
      for (let row = 0; row < plan.sequences.length; row++) {
        (plan.sequences[row] as Sequence).blocks.table(group).fillRow(tables, row * width, width);
      }
    }
  }

  /** A token's target is the one after it; the text's last token has none. */
  #fillTargets(plan: StepPlan): void {
    this.#targetIds.fill(-1);
    let token = 0;
    for (let row = 0; row < plan.sequences.length; row++) {
      const { blocks, goal } = plan.sequences[row] as Sequence;
      const count = plan.counts[row] as number;
      if (goal.kind === 'score') {
        const position = plan.positions[row] as number;
        for (let index = 0; index < count && position + index + 1 < blocks.numTokens; index++) {
          this.#targetIds[token + index] = blocks.tokenAt(position + index + 1);
        }
      }
      token += count;
    }
  }

  #viewOf(numTokens: number, numSequences: number, width: number, targets: boolean): Omit<StepBatch, 'admissions'> {
    const last = this.#view;
    if (
      last !== null &&
      last.width === width &&
      last.targets === targets &&
      last.batch.tokenIds.length === numTokens &&
      last.batch.rowFlags.length === numSequences
    ) {
      return last.batch;
    }
    const batch = {
      tokenIds: this.#tokenIds.subarray(0, numTokens),
      positions: this.#positions.subarray(0, numTokens),
      cuSeqlensQ: this.#cuSeqlensQ.subarray(0, numSequences + 1),
      contextLengths: this.#contextLengths.subarray(0, numSequences),
      groups: this.#blockTables.map((tables, group) => ({
        blockTables: tables.subarray(0, numSequences * width),
        blockTableWidth: width,
        slotMapping: (this.#slotMappings[group] as Int32Array).subarray(0, numTokens),
      })),
      inputRows: this.#inputRows.subarray(0, numSequences),
      samplerSlots: this.#samplerSlots.subarray(0, numSequences),
      outputIndexes: this.#outputIndexes.subarray(0, numSequences),
      rowFlags: this.#rowFlags.subarray(0, numSequences),
      ...(targets ? { targetIds: this.#targetIds.subarray(0, numTokens) } : {}),
    };
    this.#view = { batch, width, targets };
    return batch;
  }
}

function rowFlags(sequence: Sequence, outputIndex: number): number {
  switch (sequence.goal.kind) {
    case 'generate':
      if (outputIndex < 0) return 0;
      return ROW_FLAGS.sample + (sequence.goal.reportHashes ? ROW_FLAGS.hash : 0);
    case 'score':
      return ROW_FLAGS.targets;
    case 'logits':
      return ROW_FLAGS.logitsAll;
  }
}

function admissionOf(sequence: Sequence): SamplerAdmission {
  if (sequence.goal.kind !== 'generate' || sequence.samplerSlot === null) {
    throw new KvasirError('invariant-broken', `sequence ${sequence.id}: expected a generation with a sampler slot`);
  }
  return {
    slot: sequence.samplerSlot,
    params: sequence.goal.sampling,
    history: sequence.blocks.tokenIds,
    numPromptTokens: sequence.numPromptTokens,
    stopIds: sequence.goal.stopIds,
    maxOutputs: sequence.goal.maxOutputs,
  };
}
