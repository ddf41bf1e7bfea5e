import type { StepBatch } from '@kvasir/domain';

/** A batch nobody else can write to, as a runner owes it to its caller. */
export function copyBatch(batch: StepBatch): StepBatch {
  return {
    tokenIds: batch.tokenIds.slice(),
    positions: batch.positions.slice(),
    cuSeqlensQ: batch.cuSeqlensQ.slice(),
    contextLengths: batch.contextLengths.slice(),
    groups: batch.groups.map((group) => ({
      blockTables: group.blockTables.slice(),
      blockTableWidth: group.blockTableWidth,
      slotMapping: group.slotMapping.slice(),
    })),
    inputRows: batch.inputRows.slice(),
    samplerSlots: batch.samplerSlots.slice(),
    outputIndexes: batch.outputIndexes.slice(),
    rowFlags: batch.rowFlags.slice(),
    ...(batch.targetIds === undefined ? {} : { targetIds: batch.targetIds.slice() }),
    admissions: batch.admissions.map((admission) => ({
      ...admission,
      history: admission.history.slice(),
      stopIds: admission.stopIds.slice(),
    })),
  };
}
