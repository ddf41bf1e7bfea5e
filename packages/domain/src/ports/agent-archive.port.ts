import type { AgentManifest, AgentSummary, CommitEntry, NoteEntry } from '../agents/agent-manifest.ts';
import type { BlockKey } from './block-store.port.ts';

/**
 * Agents that outlive the process. Two promises, two methods: what is *committed* is flushed when the promise resolves,
 * what is *noted* follows behind. Entries of one agent are kept in the order of the calls. Names and tenants are text to
 * the archive: never paths.
 */
export interface AgentArchive {
  /** Summaries of all agents, in pages and in no order, from the index alone: no manifest is read. */
  list(): AsyncIterable<readonly AgentSummary[]>;

  /**
   * A new agent, empty or with what a fork or an import brings. Flushed when it resolves.
   * @throws KvasirError `agent-exists` (tenant and name are taken), `invalid-argument`, `disk-full`, `disk-unwritable`,
   *   `disposed`
   */
  create(agent: NewAgent): Promise<AgentSummary>;

  /**
   * A finished turn, a rewind or a pin. Resolves when it is flushed: it then outlives a power cut. Calls that wait
   * together are flushed together.
   * @throws KvasirError `agent-not-found`, `invalid-argument` (nothing changed), `disk-full`, `disk-unwritable` (the change
   *   is not promised; earlier ones stand), `disposed`
   */
  commit(agentId: string, entry: CommitEntry): Promise<AgentSummary>;

  /**
   * Which blocks hold the agent's KV now, or that a request used it. Resolves when it is written; flushed later, at the
   * latest by the next commit of the agent, by `close`, or before a block that is put afterwards becomes durable. Note a
   * block before it is put: a crash in between then leaves a reference to nothing, which is a miss, and never a block
   * that deleting the agent would overlook.
   * @throws KvasirError as `commit`
   */
  note(agentId: string, entry: NoteEntry): Promise<void>;

  /** The whole manifest. @throws KvasirError `agent-not-found`, `file-corrupt`, `disposed` */
  read(agentId: string): Promise<AgentManifest>;

  /**
   * Forgets an agent: when it resolves no file of the archive or of its block store holds the agent's tokens, except
   * blocks that other agents refer to. A crash midway is finished at the next opening.
   * @returns keys the agent referred to and no other agent does: drop them from the upper tiers
   * @throws KvasirError `agent-not-found`, `disk-unwritable` (the agent is gone for callers; removal is finished later)
   */
  delete(agentId: string): Promise<readonly BlockKey[]>;

  usage(): Promise<AgentArchiveUsage>;

  /** Flushes everything and marks the index clean, then refuses with `disposed`. Idempotent. */
  close(): Promise<void>;
}

export interface NewAgent {
  readonly tenant: string;
  readonly name: string;
  readonly identity: AgentManifest['identity'];
  readonly atMs: number;
  /** What it starts with; turns must end within the tokens, blocks as in a `blocks` note. */
  readonly tokenIds?: Int32Array;
  readonly turns?: AgentManifest['turns'];
  readonly blocks?: AgentManifest['blocks'];
}

export interface AgentArchiveUsage {
  readonly agents: number;
  /** How the index was found when it was opened. */
  readonly opening: 'new' | 'clean' | 'recovered' | 'rebuilt';
  readonly commits: number;
  /** Flushes the commits took: fewer where several waited together. */
  readonly flushes: number;
  /** Journals whose last record was unfinished and was cut. */
  readonly tornTails: number;
  /** Journals with damage before their end: a copy is set aside, the part before the damage is kept. */
  readonly damagedJournals: number;
  /** Indexes that were damaged or missing and were built again from the manifests. */
  readonly indexRebuilds: number;
  /** Deletions an earlier process had begun. */
  readonly deletionsFinished: number;
  readonly writeFailures: number;
}
