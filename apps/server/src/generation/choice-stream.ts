import { KvasirError } from '@kvasir/domain';
import type { TextChoice, TextPiece } from './text-choice.ts';

/** What happens around a choice's end. */
export interface ChoiceEnding {
  /** Before the end is told: a turn is written here. What it throws ends the stream. @returns whether one was */
  conclude(choice: TextChoice): Promise<boolean>;
  /** Once every choice has ended, however it did. */
  leave(): void;
}

/**
 * The choices of one request as one stream of text. Reads every generation as it goes, so a slow reader holds back
 * nobody; what waits for it is at most the request's own tokens, and comes in one batch when it asks again.
 */
export class ChoiceStream {
  readonly choices: readonly TextChoice[];
  #pending: TextPiece[] = [];
  #wake: (() => void) | null = null;
  #failure: KvasirError | null = null;
  #numOpen: number;
  readonly #ending: ChoiceEnding;
  #numTurns = 0;

  constructor(choices: readonly TextChoice[], ending: ChoiceEnding) {
    this.choices = choices;
    this.#ending = ending;
    this.#numOpen = choices.length;
    for (const choice of choices) void this.#read(choice);
  }

  /**
   * Waits until there is something to read, or for `milliseconds`.
   * @throws KvasirError what the request failed with before anything could be read
   */
  async begun(milliseconds: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, milliseconds);
    });
    await Promise.race([this.#ready(), late]);
    clearTimeout(timer);
    if (this.#pending.length === 0 && this.#failure !== null) throw this.#failure;
  }

  /** The pieces that arrived since the last call, at least one; null at the end. @throws KvasirError a choice failed with */
  async next(): Promise<readonly TextPiece[] | null> {
    await this.#ready();
    if (this.#pending.length > 0) {
      const pieces = this.#pending;
      this.#pending = [];
      return pieces;
    }
    if (this.#failure !== null) throw this.#failure;
    return null;
  }

  /** Ends every generation at once; `next` then throws `aborted`. */
  abort(): void {
    this.#fail(new KvasirError('aborted', 'expected the client to stay, found its connection closed'));
  }

  /** Tokens sampled over all choices. */
  get outputTokens(): number {
    return this.choices.reduce((sum, choice) => sum + choice.generation.stats.outputTokens, 0);
  }

  /** Turns that agents have kept. */
  get numTurns(): number {
    return this.#numTurns;
  }

  async #ready(): Promise<void> {
    while (this.#pending.length === 0 && this.#numOpen > 0 && this.#failure === null) {
      await new Promise<void>((resolve) => {
        const before = this.#wake;
        this.#wake = () => {
          before?.();
          resolve();
        };
      });
    }
  }

  async #read(choice: TextChoice): Promise<void> {
    try {
      for await (const batch of choice.generation) {
        const piece = choice.push(batch);
        if (piece?.finish?.reason === 'failed') {
          throw piece.finish.error ?? new KvasirError('aborted', 'expected the generation to end, found it aborted');
        }
        if (piece !== null && piece.finish !== null && (await this.#ending.conclude(choice))) this.#numTurns += 1;
        if (piece !== null) this.#deliver(piece);
      }
    } catch (error) {
      this.#fail(error instanceof KvasirError ? error : new KvasirError('internal', String(error), { cause: error }));
    }
    this.#numOpen -= 1;
    if (this.#numOpen === 0) this.#ending.leave();
    this.#notify();
  }

  #deliver(piece: TextPiece): void {
    this.#pending.push(piece);
    this.#notify();
  }

  #fail(error: KvasirError): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    for (const choice of this.choices) choice.generation.abort();
    this.#notify();
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
