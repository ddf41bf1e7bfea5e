import { KvasirError, ROW_FLAGS, type RunnerInfo, type StepBatch } from '@kvasir/domain';

/** Holds a batch against everything the port promises a runner. @throws KvasirError `invalid-argument` */
export function checkBatch(batch: StepBatch, info: RunnerInfo, numPreviousRows: number): void {
  const numTokens = batch.tokenIds.length;
  const numSequences = batch.rowFlags.length;
  expect(numTokens >= 1 && numTokens <= info.maxBatchTokens, `1 to ${info.maxBatchTokens} tokens`, numTokens);
  expect(
    numSequences >= 1 && numSequences <= info.maxBatchSequences,
    `1 to ${info.maxBatchSequences} sequences`,
    numSequences,
  );
  expect(batch.positions.length === numTokens, 'a position for each token', batch.positions.length);
  for (const name of ['contextLengths', 'inputRows', 'samplerSlots', 'outputIndexes'] as const) {
    expect(batch[name].length === numSequences, `${name} for each sequence`, batch[name].length);
  }
  expect(batch.cuSeqlensQ.length === numSequences + 1, 'cuSeqlensQ of S + 1', batch.cuSeqlensQ.length);
  expect(batch.cuSeqlensQ[0] === 0, 'cuSeqlensQ from 0', batch.cuSeqlensQ[0]);
  expect(batch.cuSeqlensQ[numSequences] === numTokens, 'cuSeqlensQ up to T', batch.cuSeqlensQ[numSequences]);
  expect(batch.groups.length === info.numBlocks.length, 'an entry for each layer group', batch.groups.length);
  for (const admission of batch.admissions) {
    expect(isIndex(admission.slot, info.numSamplerSlots), 'a sampler slot of the runner', admission.slot);
  }
  for (let row = 0; row < numSequences; row++) checkRow(batch, info, row, numPreviousRows);
  checkSlots(batch, info);
}

function checkRow(batch: StepBatch, info: RunnerInfo, row: number, numPreviousRows: number): void {
  const first = batch.cuSeqlensQ[row] as number;
  const end = batch.cuSeqlensQ[row + 1] as number;
  expect(end > first, `a token in row ${row}`, end - first);
  const inputRow = batch.inputRows[row] as number;
  expect(inputRow === -1 || isIndex(inputRow, numPreviousRows), 'an input row of the batch before', inputRow);
  for (let token = first; token < end; token++) {
    if (token === first && inputRow >= 0) continue;
    expect(isIndex(batch.tokenIds[token] as number, info.vocabularySize), 'a token id', batch.tokenIds[token]);
  }
  const firstPosition = batch.positions[first] as number;
  expect(firstPosition >= 0, 'positions from 0 on', firstPosition);
  for (let token = first; token < end; token++) {
    expect(batch.positions[token] === firstPosition + token - first, 'consecutive positions', batch.positions[token]);
  }
  const contextLength = firstPosition + end - first;
  expect(
    batch.contextLengths[row] === contextLength,
    'a context length of last position + 1',
    batch.contextLengths[row],
  );
  const { blockTokens } = info.cacheSpec;
  for (const [group, { blockTables, blockTableWidth }] of batch.groups.entries()) {
    expect(
      blockTableWidth >= 1 && blockTableWidth <= info.maxBlocksPerSequence,
      `a block table of 1 to ${info.maxBlocksPerSequence}`,
      blockTableWidth,
    );
    expect(
      blockTables.length === batch.rowFlags.length * blockTableWidth,
      'block tables of (S, M)',
      blockTables.length,
    );
    const numNeeded = Math.ceil(contextLength / blockTokens);
    expect(numNeeded <= blockTableWidth, 'a block table over the context', blockTableWidth);
    for (let index = 0; index < numNeeded; index++) {
      const blockId = blockTables[row * blockTableWidth + index] as number;
      expect(isIndex(blockId, info.numBlocks[group] as number), 'a block id of the pool', blockId);
    }
  }
  const flags = batch.rowFlags[row] as number;
  const slot = batch.samplerSlots[row] as number;
  if ((flags & ROW_FLAGS.sample) !== 0) expect(isIndex(slot, info.numSamplerSlots), 'a sampler slot', slot);
  if ((flags & ROW_FLAGS.targets) !== 0) {
    expect(batch.targetIds?.length === batch.tokenIds.length, 'targets for each token', batch.targetIds?.length);
  }
}

/** A slot is written inside the row's own table, at the token's own place, and by one token only. */
function checkSlots(batch: StepBatch, info: RunnerInfo): void {
  const { blockTokens } = info.cacheSpec;
  for (const { blockTables, blockTableWidth, slotMapping } of batch.groups) {
    expect(slotMapping.length === batch.tokenIds.length, 'a slot for each token', slotMapping.length);
    const written = new Set<number>();
    for (let row = 0; row < batch.rowFlags.length; row++) {
      for (let token = batch.cuSeqlensQ[row] as number; token < (batch.cuSeqlensQ[row + 1] as number); token++) {
        const slot = slotMapping[token] as number;
        if (slot === -1) continue;
        const position = batch.positions[token] as number;
        const blockId = blockTables[row * blockTableWidth + Math.floor(position / blockTokens)] as number;
        expect(slot === blockId * blockTokens + (position % blockTokens), 'the slot of the token in its table', slot);
        expect(!written.has(slot), 'each slot written once', slot);
        written.add(slot);
      }
    }
  }
}

function isIndex(value: number, length: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < length;
}

function expect(holds: boolean, expected: string, found: number | undefined): void {
  if (!holds) throw new KvasirError('invalid-argument', `batch: expected ${expected}, found ${found}`);
}
