import { KvasirError, type Sequence } from '@kvasir/domain';
import type { SequenceCache } from './cache/sequence-cache.ts';
import type { EngineSettings } from './engine-options.ts';
import { addRow, assignRows, emptyPlan, type StepPlan } from './step-plan.ts';
import { sharePrefillTokens } from './prefill-budget.ts';
import { SamplerSlots } from './sampler-slots.ts';

/** A decoding sequence's next block is made free this many tokens before it is needed: more than steps are in flight. */
const TOKENS_AHEAD = 4;

/**
 * Chooses what each step carries. Policy only: ids belong to the BlockPools, execution to the runner, KV that is
 * there already to the cache.
 *
 * Every decoding sequence gets one token; what is left of the token budget goes to prompts, oldest first, at most
 * `prefillChunkTokens` of them while anything decodes. Arrival order decides every conflict: the oldest running sequence
 * is never preempted, so it always gets on, and nobody overtakes the head of the queue.
 */
export class Scheduler {
  readonly #settings: EngineSettings;
  readonly #cache: SequenceCache;
  readonly #slots: SamplerSlots;
  /** Both by arrival: ids ascend. */
  readonly #running: Sequence[] = [];
  readonly #waiting: Sequence[] = [];
  readonly #onPreempt: (sequence: Sequence) => void;
  readonly #onAdmit: (sequence: Sequence) => void;

  constructor(
    settings: EngineSettings,
    cache: SequenceCache,
    numSamplerSlots: number,
    listeners: { readonly onAdmit: (sequence: Sequence) => void; readonly onPreempt: (sequence: Sequence) => void },
  ) {
    this.#settings = settings;
    this.#cache = cache;
    this.#slots = new SamplerSlots(numSamplerSlots);
    this.#onAdmit = listeners.onAdmit;
    this.#onPreempt = listeners.onPreempt;
  }

  get numRunning(): number {
    return this.#running.length;
  }

  get numWaiting(): number {
    return this.#waiting.length;
  }

  add(sequence: Sequence): void {
    insertByArrival(this.#waiting, sequence);
  }

  /** Ends a sequence in whatever state it is and gives back what it holds. */
  end(sequence: Sequence): void {
    remove(sequence.state === 'running' ? this.#running : this.#waiting, sequence);
    this.#cache.leave(sequence);
    const slot = sequence.end();
    if (slot !== null) this.#slots.giveBack(slot);
  }

  /** Sends a running sequence back to the queue; its known tokens are computed again when it is admitted. */
  preempt(sequence: Sequence): void {
    remove(this.#running, sequence);
    this.#cache.leave(sequence);
    this.#slots.giveBack(sequence.preempt());
    insertByArrival(this.#waiting, sequence);
    this.#onPreempt(sequence);
  }

  /**
   * The next step's rows, with blocks reserved and sequences told; null when nothing can run now. That is so without
   * work, and while all that could run waits for blocks which a step in flight will set free.
   */
  plan(): StepPlan | null {
    const plan = emptyPlan();
    this.#evictAhead();
    this.#planDecode(plan);
    this.#planPrefill(plan);
    if (plan.numTokens === 0) return null;
    assignRows(plan);
    return plan;
  }

  /**
   * Cached blocks are evicted a few tokens before a decoding sequence needs theirs: while a step is in flight they are
   * retired for a while, and nobody should have to wait for that.
   */
  #evictAhead(): void {
    let count = 0;
    for (const sequence of this.#running) {
      if (!sequence.isDecoding || sequence.goal.kind !== 'generate') continue;
      const ahead = Math.min(TOKENS_AHEAD, sequence.goal.maxOutputs - sequence.nextOutputIndex);
      count += sequence.blocks.blocksMissing(sequence.numScheduled + ahead);
    }
    if (count > 0) this.#cache.evictFor(count);
  }

  #planDecode(plan: StepPlan): void {
    // The list shrinks from its end while victims are taken; those before `index` are never among them.
    for (let index = 0; index < this.#running.length; index++) {
      const sequence = this.#running[index] as Sequence;
      if (!sequence.isDecoding || sequence.numPending === 0) continue;
      if (this.#makeRoom(sequence, index)) addRow(plan, sequence, 1);
    }
    plan.numDecodeTokens = plan.numTokens;
  }

  #planPrefill(plan: StepPlan): void {
    const candidates: Sequence[] = [];
    let isAnyDecoding = false;
    for (const sequence of this.#running) {
      if (sequence.isDecoding) isAnyDecoding = true;
      else if (sequence.numPending > 0) candidates.push(sequence);
    }
    if (candidates.length === 0 && this.#waiting.length === 0) return;
    const { maxBatchTokens, prefillChunkTokens, attentionParityTokens } = this.#settings;
    const left = maxBatchTokens - plan.numTokens;
    const budget = isAnyDecoding ? Math.min(left, prefillChunkTokens) : left;
    if (budget < 1) return;
    this.#admit(candidates, budget);
    const shares = sharePrefillTokens(
      candidates.map((sequence) => ({
        wanted: Math.min(sequence.numPending, sequence.maxChunkTokens),
        position: sequence.numScheduled,
      })),
      budget,
      // Nobody waits for this step's end while nothing decodes.
      isAnyDecoding ? attentionParityTokens : Number.POSITIVE_INFINITY,
    );
    for (const [index, sequence] of candidates.entries()) {
      const share = shares[index] as number;
      // An older prompt short of blocks may have preempted this one.
      if (share === 0 || sequence.state !== 'running') continue;
      this.#cache.evictFor(sequence.blocks.blocksMissing(sequence.numScheduled + share));
      const count = Math.min(share, this.#slotsWithin(sequence));
      if (count > 0) {
        sequence.blocks.reserve(sequence.numScheduled + count);
        addRow(plan, sequence, count);
        // Later arrivals that have a row in this step cannot be preempted any more; without any, none has.
      } else if (plan.numDecodeTokens === 0 && this.#makeRoom(sequence, this.#running.indexOf(sequence))) {
        addRow(plan, sequence, 1);
      }
    }
  }

  /** Tokens of a sequence the blocks it has and the free ones can hold. */
  #slotsWithin(sequence: Sequence): number {
    const blocks = sequence.blocks.numBlocks + this.#cache.numFree;
    return blocks * sequence.blocks.blockTokens - sequence.numScheduled;
  }

  /**
   * Reserves a slot for one more token, if need be at the cost of the latest arrivals. Nobody is preempted for blocks
   * that are merely retired: they are worth waiting for. A sequence that gets none keeps what it has and waits.
   */
  #makeRoom(sequence: Sequence, index: number): boolean {
    const numTokens = sequence.numScheduled + 1;
    const missing = sequence.blocks.blocksMissing(numTokens);
    this.#cache.evictFor(missing);
    while (missing > this.#cache.numFreeSoon) {
      // Those who wait give back what they were prepared with before anybody who runs is sent back.
      if (this.#waiting.findLast((waiting) => this.#cache.drop(waiting)) === undefined) {
        // The oldest always gets on: nobody's end could be waited for.
        if (this.#running.length - 1 > index) this.preempt(this.#running.at(-1) as Sequence);
        else if (index > 0 || !this.#cache.evictPinned(missing)) break;
      }
      this.#cache.evictFor(missing);
    }
    return sequence.blocks.reserve(numTokens);
  }

  /**
   * Moves waiting sequences to the running ones, oldest first, while the whole of what they must compute fits beside
   * what the running ones still have to, and a token budget is left for them.
   */
  #admit(candidates: Sequence[], budget: number): void {
    let wanted = candidates.reduce((sum, sequence) => sum + Math.min(sequence.numPending, sequence.maxChunkTokens), 0);
    let place = 0;
    while (place < this.#waiting.length && this.#running.length < this.#settings.maxBatchSequences) {
      // One more prompt than the budget feeds, so that a short one need not wait for a long one.
      if (wanted >= budget && candidates.length >= 2) break;
      const sequence = this.#waiting[place] as Sequence;
      const preparation = this.#cache.prepare(sequence, this.#numPromised());
      if (preparation === 'loading') {
        // Others go on while its blocks are on their way.
        place++;
        continue;
      }
      const available = this.#cache.numFree + this.#cache.numEvictable - this.#numPromised();
      const missing = sequence.blocks.blocksMissing(sequence.blocks.numTokens);
      if (preparation === 'short' || missing > available) {
        if (this.#yieldTo(place, missing)) continue;
        break;
      }
      const slot = this.#slots.take();
      if (slot === null) break;
      this.#waiting.splice(place, 1);
      sequence.admit(slot);
      insertByArrival(this.#running, sequence);
      insertByArrival(candidates, sequence);
      wanted += Math.min(sequence.numPending, sequence.maxChunkTokens);
      this.#onAdmit(sequence);
    }
  }

  /**
   * Makes room for a waiting sequence at the cost of those behind it, which may have been prepared while it was loading,
   * and, when nobody runs whose end could be waited for, of pinned blocks. @returns whether trying again is worth it
   */
  #yieldTo(place: number, numBlocks: number): boolean {
    const behind = this.#waiting.slice(place + 1);
    if (behind.findLast((waiting) => this.#cache.drop(waiting)) !== undefined) return true;
    return this.#running.length === 0 && this.#cache.numLoading === 0 && this.#cache.evictPinned(numBlocks);
  }

  /** Blocks that running prompts still need, and one to spare for those that decode. */
  #numPromised(): number {
    let promised = this.#running.length > 0 ? 1 : 0;
    for (const sequence of this.#running) {
      if (!sequence.isDecoding) promised += sequence.blocks.blocksMissing(sequence.blocks.numTokens);
    }
    return promised;
  }
}

function insertByArrival(list: Sequence[], sequence: Sequence): void {
  let place = list.length;
  while (place > 0 && (list[place - 1] as Sequence).id > sequence.id) place--;
  list.splice(place, 0, sequence);
}

function remove(list: Sequence[], sequence: Sequence): void {
  const place = list.indexOf(sequence);
  if (place < 0) {
    throw new KvasirError('invariant-broken', `sequence ${sequence.id}: expected it among the ${sequence.state} ones`);
  }
  list.splice(place, 1);
}
