import { describe, expect, it } from 'vitest';
import { AgentBlocks } from '../agents/agent-blocks.ts';
import { BlockPool } from '../blocks/block-pool.ts';
import { GREEDY } from './sampling-params.ts';
import { Sequence, type SequenceGoal } from './sequence.ts';

const withCode = (code: string) => expect.objectContaining({ code });
const generate: SequenceGoal = {
  kind: 'generate',
  sampling: GREEDY,
  maxOutputs: 3,
  stopIds: new Int32Array(0),
  reportHashes: false,
};

function sequenceOf(numTokens: number, goal: SequenceGoal = generate): Sequence {
  const blocks = new AgentBlocks(1, [new BlockPool(8)], 4);
  blocks.append(new Int32Array(numTokens));
  blocks.reserve(32);
  return new Sequence(1, blocks, goal, 100);
}

describe('Sequence', () => {
  it('prefills in chunks, then decodes one token a step ahead of what is known', () => {
    const sequence = sequenceOf(5);
    sequence.admit(0);
    expect([sequence.isDecoding, sequence.numPending]).toEqual([false, 5]);
    expect(sequence.schedule(3)).toBe(false);
    expect(sequence.schedule(2)).toBe(true);
    // The first output is in flight: the next step reads it on the device.
    expect([sequence.isDecoding, sequence.isInputInFlight, sequence.numPending]).toEqual([true, true, 1]);
    expect(sequence.nextOutputIndex).toBe(1);
    expect(sequence.schedule(1)).toBe(true);
    sequence.completeTokens(3);
    sequence.completeTokens(5);
    expect(sequence.acceptOutput(9)).toBe(0);
    expect([sequence.isInputInFlight, sequence.numPending, sequence.blocks.kvLength]).toEqual([true, 1, 5]);
    expect(sequence.acceptOutput(8)).toBe(1);
    expect([sequence.isInputInFlight, sequence.numPending, sequence.numOutputs]).toEqual([false, 1, 2]);
  });

  it('has nothing pending once its last output is in flight', () => {
    const sequence = sequenceOf(1);
    sequence.admit(0);
    for (let output = 0; output < 3; output++) sequence.schedule(1);
    expect(sequence.numPending).toBe(0);
    expect(() => sequence.schedule(1)).toThrow(withCode('invariant-broken'));
  });

  it('forgets what is in flight when preempted and computes its known tokens again', () => {
    const sequence = sequenceOf(4);
    sequence.admit(6);
    sequence.schedule(4);
    sequence.completeTokens(4);
    sequence.acceptOutput(7);
    sequence.schedule(1);
    const { epoch } = sequence;
    expect(sequence.preempt()).toBe(6);
    expect(sequence.epoch).not.toBe(epoch);
    expect([sequence.state, sequence.numPending, sequence.nextOutputIndex]).toEqual(['waiting', 5, 1]);
    expect(sequence.blocks.numBlocks).toBe(0);
    sequence.admit(2);
    expect([sequence.isDecoding, sequence.isSamplerAdmitted, sequence.numPreemptions]).toEqual([false, false, 1]);
  });

  it('samples nothing when it is only read', () => {
    const sequence = sequenceOf(4, { kind: 'score' });
    sequence.admit(0);
    expect(sequence.schedule(4)).toBe(false);
    expect([sequence.isDecoding, sequence.numPending]).toEqual([false, 0]);
  });

  it('refuses what its state does not allow', () => {
    const sequence = sequenceOf(4);
    expect(() => sequence.schedule(1)).toThrow(withCode('invariant-broken'));
    expect(() => sequence.preempt()).toThrow(withCode('invariant-broken'));
    sequence.admit(0);
    expect(() => sequence.admit(0)).toThrow(withCode('invariant-broken'));
    expect(() => sequence.acceptOutput(1)).toThrow(withCode('invariant-broken'));
    expect(() => sequence.schedule(0)).toThrow(withCode('invariant-broken'));
    expect(sequence.end()).toBe(0);
    expect(() => sequence.end()).toThrow(withCode('invariant-broken'));
    expect(() => sequence.acceptOutput(1)).toThrow(withCode('invariant-broken'));
  });

  it('ends from the queue without a slot', () => {
    expect(sequenceOf(4).end()).toBeNull();
  });
});
