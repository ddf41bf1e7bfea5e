import type { AgentManifest, AgentSummary } from '../agents/agent-manifest.ts';
import type { CancellationSignal } from './cancellation-signal.ts';

/**
 * The driving port of agents: named memories that outlive requests and the process. An agent is found by its tenant and
 * its name; what belongs to another tenant does not exist for a caller.
 *
 * Everything that reads or changes one agent's tokens waits in line, first come first served, so a rewind that arrives
 * during a turn happens after it. A `signal` leaves the line.
 */
export interface AgentDirectory {
  /** @throws KvasirError `agent-exists`, `invalid-argument` (the name), `disk-full`, `disk-unwritable` */
  create(agent: AgentName): Promise<AgentSummary>;

  /** By name, ascending, from the one after `after`; at most `limit`. */
  list(tenant: string, page: { readonly after?: string; readonly limit: number }): Promise<readonly AgentSummary[]>;

  /** @throws KvasirError `agent-not-found` */
  inspect(agent: AgentName): Promise<AgentDetails>;

  /**
   * A new agent that begins with the first `upTo` of another. Full blocks are shared; nothing is computed or copied but
   * the leading slots of a last block that the cut goes through, when the new agent first runs.
   * @throws KvasirError `agent-not-found`, `agent-exists`, `invalid-argument` (the cut), `disk-full`, `disk-unwritable`
   */
  fork(agent: AgentName, to: string, upTo?: AgentCut, signal?: CancellationSignal): Promise<AgentSummary>;

  /** Keeps what lies before the cut. @throws KvasirError `agent-not-found`, `invalid-argument`, `disk-full`, `disk-unwritable` */
  rewind(agent: AgentName, to: AgentCut, signal?: CancellationSignal): Promise<AgentSummary>;

  /** Keeps the KV of the first `pinnedTokens` tokens from being evicted; 0 unpins, Number.MAX_SAFE_INTEGER pins all. */
  pin(agent: AgentName, pinnedTokens: number): Promise<AgentSummary>;

  /**
   * Removes the agent and every block no other agent refers to, on every tier; nothing of it can be read when this
   * resolves. @throws KvasirError `agent-not-found`, `disk-unwritable`
   */
  delete(agent: AgentName, signal?: CancellationSignal): Promise<void>;

  /** The agent as one stream: manifest, then the KV that is there. @throws KvasirError `agent-not-found` */
  export(agent: AgentName, signal?: CancellationSignal): Promise<AsyncIterable<Uint8Array>>;

  /**
   * An agent from an exported stream, under a new name. Its KV is taken where model, dtype and numerics are this
   * engine's; with `acceptNumerics` also that of another backend, and the agent is marked for it. Otherwise the tokens
   * are taken and the KV is computed when it is needed.
   * @throws KvasirError `file-corrupt`, `file-foreign`, `file-truncated`, `agent-other-model`, `agent-exists`,
   *   `disk-full`, `disk-unwritable`; nothing is then left behind
   */
  import(
    agent: AgentName,
    stream: AsyncIterable<Uint8Array>,
    options?: { readonly acceptNumerics?: boolean; readonly signal?: CancellationSignal },
  ): Promise<AgentImport>;

  /**
   * Waits until nobody else has a turn of the agent. The turn must be ended by `commit` or `release`.
   * @param createAbsent a name nobody has becomes an agent
   * @throws KvasirError `agent-not-found`, `agent-other-model`, `invalid-argument` (the name), `aborted`
   */
  beginTurn(
    agent: AgentName,
    options: { readonly createAbsent: boolean; readonly signal?: CancellationSignal },
  ): Promise<AgentTurnInProgress>;
}

/** A name is 1 to 128 of A-Z a-z 0-9 . _ : @ - and begins with a letter or digit. It never becomes a path. */
export interface AgentName {
  readonly tenant: string;
  readonly name: string;
}

/** Tokens from the agent's start, or turns from its start. */
export type AgentCut = { readonly tokens: number } | { readonly turns: number };

export interface AgentTurnInProgress {
  /** As it was when the turn began. */
  readonly manifest: AgentManifest;

  /**
   * The turn is over: the agent's tokens are now `tokenIds`. Where they leave the agent's earlier tokens, the agent is
   * rewound to there first (ADR-0010). Flushed when it resolves; KV follows behind. The turn is over also when it rejects.
   * @param tokenIds (n) prompt and outputs kept
   * @param segments JSON of the turn's text (see the text index)
   * @throws KvasirError `disk-full`, `disk-unwritable`: earlier turns stand
   */
  commit(turn: FinishedTurn): Promise<AgentSummary>;

  /** Ends the turn without a change. Idempotent; a no-op after `commit`. */
  release(): void;
}

export interface FinishedTurn {
  readonly tokenIds: Int32Array;
  readonly segments: string;
  /** What the turn's prompt reused, for the agent's history of hits. */
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

export interface AgentDetails {
  readonly manifest: AgentManifest;
  readonly tiers: AgentTiers;
  /** Whether a turn of it runs now. */
  readonly isBusy: boolean;
}

/** Where an agent's KV lies. A block that is on several tiers counts on each. */
export interface AgentTiers {
  readonly hot: TierHolding;
  readonly warm: TierHolding;
  readonly cold: TierHolding;
}

export interface TierHolding {
  readonly blocks: number;
  readonly tokens: number;
  readonly bytes: number;
}

export interface AgentImport {
  readonly agent: AgentSummary;
  readonly blocks: number;
  /** Blocks of the stream that were not taken, and why. */
  readonly refused: readonly { readonly reason: string; readonly blocks: number }[];
}
