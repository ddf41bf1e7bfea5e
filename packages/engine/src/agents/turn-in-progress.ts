import {
  type AgentManifest,
  type AgentSummary,
  type AgentTurnInProgress,
  type FinishedTurn,
  KvasirError,
} from '@kvasir/domain';

/** One turn: it ends once, by a commit or a release, and lets the next one in then. */
export class TurnInProgress implements AgentTurnInProgress {
  readonly manifest: AgentManifest;
  readonly #write: (turn: FinishedTurn) => Promise<AgentSummary>;
  readonly #leave: () => void;
  #state: 'open' | 'committing' | 'over' = 'open';

  /** @param leave gives the agent to who waits next; idempotent */
  constructor(manifest: AgentManifest, write: (turn: FinishedTurn) => Promise<AgentSummary>, leave: () => void) {
    this.manifest = manifest;
    this.#write = write;
    this.#leave = leave;
  }

  async commit(turn: FinishedTurn): Promise<AgentSummary> {
    if (this.#state !== 'open') {
      throw new KvasirError('invalid-argument', 'turn: expected one in progress, found it over');
    }
    this.#state = 'committing';
    try {
      return await this.#write(turn);
    } finally {
      this.#state = 'over';
      this.#leave();
    }
  }

  release(): void {
    // While a commit is being flushed the agent stays taken: what it writes is on its way.
    if (this.#state !== 'open') return;
    this.#state = 'over';
    this.#leave();
  }
}
