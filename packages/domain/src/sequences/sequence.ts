import type { AgentBlocks } from '../agents/agent-blocks.ts';
import { KvasirError } from '../errors/kvasir-error.ts';
import type { SamplingParams } from './sampling-params.ts';

/** What a sequence is run for. */
export type SequenceGoal =
  | {
      readonly kind: 'generate';
      readonly sampling: SamplingParams;
      /** Outputs at most, at least 1. */
      readonly maxOutputs: number;
      readonly stopIds: Int32Array;
      readonly reportHashes: boolean;
    }
  /** Log-probability of each token given those before it. */
  | { readonly kind: 'score' }
  | { readonly kind: 'logits' };

/**
 * waiting → running → ended; running → waiting again by preemption. A running sequence is in prefill while it has more
 * than one token without KV and in decode afterwards.
 */
export type SequenceState = 'waiting' | 'running' | 'ended';

/**
 * Engine-side state of one generation. Its tokens and KV are its AgentBlocks'; here is how far the device has been told
 * to go. Three lengths, with steps in flight: tokens known (`blocks.numTokens`), tokens submitted (`numScheduled`),
 * tokens whose KV is confirmed (`blocks.kvLength`). A token sampled by a step in flight is none of these yet.
 */
export class Sequence {
  readonly id: number;
  readonly blocks: AgentBlocks;
  readonly goal: SequenceGoal;
  readonly numPromptTokens: number;
  /** Most tokens of it one step may carry. */
  readonly maxChunkTokens: number;
  /** Row in the step submitted last, where its unknown input token is sampled. */
  row = -1;
  /** Held while running, null otherwise. */
  samplerSlot: number | null = null;
  /** Whether the slot holds this sequence's sampler yet. */
  isSamplerAdmitted = false;
  numPreemptions = 0;
  #state: SequenceState = 'waiting';
  #epoch = 0;
  #numScheduled = 0;
  #numSamplesInFlight = 0;

  /** @param blocks holds the prompt's tokens */
  constructor(id: number, blocks: AgentBlocks, goal: SequenceGoal, maxChunkTokens: number) {
    this.id = id;
    this.blocks = blocks;
    this.goal = goal;
    this.numPromptTokens = blocks.numTokens;
    this.maxChunkTokens = maxChunkTokens;
  }

  get state(): SequenceState {
    return this.#state;
  }

  /** Changes when the sequence is preempted or ends: what was submitted under an older epoch is discarded. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Tokens submitted to the device: the position of the next one. */
  get numScheduled(): number {
    return this.#numScheduled;
  }

  /** Outputs known. */
  get numOutputs(): number {
    return this.blocks.numTokens - this.numPromptTokens;
  }

  /** Index of the next output to sample: known ones and those in flight come before it. */
  get nextOutputIndex(): number {
    return this.numOutputs + this.#numSamplesInFlight;
  }

  /** Tokens, known or being sampled, that no step carries yet. */
  get numPending(): number {
    if (this.goal.kind === 'generate' && this.nextOutputIndex >= this.goal.maxOutputs) return 0;
    return this.blocks.numTokens + this.#numSamplesInFlight - this.#numScheduled;
  }

  /** Whether the next token to submit is still being sampled: the device reads it from its own last result. */
  get isInputInFlight(): boolean {
    return this.#numScheduled >= this.blocks.numTokens;
  }

  /** Whether it is past its prompt: a decoding sequence gets its one token in every step. */
  get isDecoding(): boolean {
    return (
      this.goal.kind === 'generate' &&
      this.blocks.numTokens + this.#numSamplesInFlight - this.#numScheduled <= 1 &&
      this.#numScheduled > 0
    );
  }

  /**
   * KV that its blocks hold already is not computed again. Where they hold all of it the last token runs once more, without
   * being written, because its logits are what the next output is sampled from.
   */
  admit(samplerSlot: number): void {
    this.#expect('waiting', 'admitted');
    this.#state = 'running';
    this.#numScheduled = Math.min(this.blocks.kvLength, this.blocks.numTokens - 1);
    this.samplerSlot = samplerSlot;
  }

  /** A step carries its next `count` tokens. @returns whether the step samples an output of it */
  schedule(count: number): boolean {
    this.#expect('running', 'scheduled');
    if (count < 1 || count > this.numPending) {
      throw new KvasirError(
        'invariant-broken',
        `sequence ${this.id}: expected to schedule 1 to ${this.numPending} tokens, found ${count}`,
      );
    }
    const samples = this.goal.kind === 'generate' && count === this.numPending;
    this.#numScheduled += count;
    if (samples) this.#numSamplesInFlight++;
    return samples;
  }

  /** A step has run: the KV of the tokens before `position` is there. */
  completeTokens(position: number): void {
    this.blocks.recordKv(Math.max(position, this.blocks.kvLength));
  }

  /** The oldest sample in flight has arrived. @returns its output index */
  acceptOutput(tokenId: number): number {
    this.#expect('running', 'given a token');
    if (this.#numSamplesInFlight < 1) {
      throw new KvasirError('invariant-broken', `sequence ${this.id}: expected a sample in flight, found none`);
    }
    this.#numSamplesInFlight--;
    this.blocks.appendToken(tokenId);
    return this.numOutputs - 1;
  }

  /** Loses its blocks and everything in flight; its known tokens will be computed again. @returns the slot it held */
  preempt(): number {
    this.#expect('running', 'preempted');
    this.#state = 'waiting';
    this.numPreemptions++;
    return this.#forget() as number;
  }

  /** Gives its blocks back; what is in flight is discarded. @returns the sampler slot it held, if any */
  end(): number | null {
    if (this.#state === 'ended') throw new KvasirError('invariant-broken', `sequence ${this.id}: ended twice`);
    this.#state = 'ended';
    return this.#forget();
  }

  #forget(): number | null {
    const slot = this.samplerSlot;
    this.samplerSlot = null;
    this.isSamplerAdmitted = false;
    this.row = -1;
    this.#epoch++;
    this.#numScheduled = 0;
    this.#numSamplesInFlight = 0;
    this.blocks.releaseBlocks();
    return slot;
  }

  #expect(state: SequenceState, action: string): void {
    if (this.#state === state) return;
    throw new KvasirError(
      'invariant-broken',
      `sequence ${this.id}: expected it ${state} to be ${action}, found it ${this.#state}`,
    );
  }
}
