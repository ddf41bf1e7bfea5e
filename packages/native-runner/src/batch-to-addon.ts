import type { SamplerAdmission, StepBatch, StepResult } from '@kvasir/domain';
import type { AddonBatch, AddonSampler, AddonStepResult } from './addon.ts';

/** The batch in the waist's terms, over the same typed arrays: nothing is copied here. */
export function toAddonBatch(batch: StepBatch): AddonBatch {
  const { groups } = batch;
  return {
    tokenIds: batch.tokenIds,
    positions: batch.positions,
    cuSeqlensQ: batch.cuSeqlensQ,
    contextLengths: batch.contextLengths,
    blockTableWidth: Uint32Array.from(groups, (group) => group.blockTableWidth),
    blockTables: groups.map((group) => group.blockTables),
    slotMapping: groups.map((group) => group.slotMapping),
    inputRows: batch.inputRows,
    samplerSlots: batch.samplerSlots,
    outputIndexes: batch.outputIndexes,
    rowFlags: batch.rowFlags,
    targetIds: batch.targetIds,
    samplers: batch.admissions.map(toAddonSampler),
  };
}

export function toStepResult({ executeNs, ...arrays }: AddonStepResult): StepResult {
  return { ...arrays, executeMs: executeNs / 1e6 };
}

function toAddonSampler({
  slot,
  params,
  history,
  numPromptTokens,
  stopIds,
  maxOutputs,
}: SamplerAdmission): AddonSampler {
  return {
    slot,
    seed: params.seed,
    temperature: params.temperature,
    topK: params.topK,
    topP: params.topP,
    minP: params.minP,
    repetitionPenalty: params.repetitionPenalty,
    frequencyPenalty: params.frequencyPenalty,
    presencePenalty: params.presencePenalty,
    nLogprobs: params.logprobs ?? 0,
    reportLogprob: params.logprobs === null ? 0 : 1,
    maxOutputs,
    adapter: -1,
    nPrompt: numPromptTokens,
    history,
    biasIds: Int32Array.from(params.logitBias.keys()),
    biasValues: Float32Array.from(params.logitBias.values()),
    stopIds,
  };
}
