import type {
  AgentArchiveUsage,
  AgentManifest,
  AgentSummary,
  BlockKey,
  BlockListing,
  BlockMiss,
  BlockPayload,
  BlockRequest,
  BlockStoring,
  ErrorCode,
  ErrorFacts,
  NewAgent,
} from '@kvasir/domain';
import type { EntryJob } from '../agents/archive-keeper.ts';
import type { BlockKeeper } from '../blocks/block-keeper.ts';
import type { BlockReading } from '../blocks/block-reader.ts';
import type { BlockBudgets } from '../blocks/write-budget.ts';

/** What the three kinds of threads are asked and answer. Payloads lie in shared memory; the rest is copied. */
export interface ReaderCalls {
  has: Call<readonly BlockKey[], readonly boolean[]>;
  get: Call<{ readonly requests: readonly BlockRequest[]; readonly flag: Int32Array }, readonly BlockReading[] | null>;
}

export interface KeeperCalls {
  open: Call<null, null>;
  put: Call<
    { readonly blocks: readonly BlockPayload[]; readonly flag: Int32Array },
    readonly (BlockStoring | 'cancelled')[]
  >;
  remove: Call<readonly BlockKey[], readonly boolean[]>;
  setAside: Call<{ readonly key: BlockKey; readonly inode: number; readonly reason: BlockMiss }, boolean>;
  list: Call<number, readonly BlockListing[]>;
  usage: Call<null, ReturnType<BlockKeeper['usage']>>;
  close: Call<null, null>;
}

export interface ArchiveCalls {
  open: Call<null, ArchiveOpened>;
  list: Call<number, { readonly summaries: readonly AgentSummary[]; readonly next: number | null }>;
  create: Call<NewAgent, AgentSummary>;
  apply: Call<EntryJob, AgentSummary>;
  read: Call<string, AgentManifest>;
  flushNotes: Call<null, null>;
  beginDeletion: Call<string, null>;
  removeFiles: Call<string, readonly BlockKey[]>;
  finishDeletion: Call<{ readonly agentId: string; readonly isLeftover: boolean }, null>;
  usage: Call<null, AgentArchiveUsage>;
  close: Call<null, null>;
}

export interface ArchiveOpened {
  readonly usage: AgentArchiveUsage;
  /** Deletions to finish. */
  readonly deletions: readonly string[];
  readonly tookOverLock: boolean;
}

/** A call's argument and answer. */
export interface Call<Argument, Answer> {
  readonly argument: Argument;
  readonly answer: Answer;
}

export type Calls<Table> = { readonly [Name in keyof Table]: Call<unknown, unknown> };
export type ArgumentOf<Row> = Row extends Call<infer Argument, unknown> ? Argument : never;
export type AnswerOf<Row> = Row extends Call<unknown, infer Answer> ? Answer : never;

export interface CallMessage {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

export type AnswerMessage =
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly failure: WireFailure };

/** A KvasirError as data; what was none crosses as `internal`. */
export interface WireFailure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly facts: ErrorFacts;
}

/** What every thread is started with. */
export interface ThreadSettings {
  readonly directory: string;
  readonly budgets: BlockBudgets;
}
