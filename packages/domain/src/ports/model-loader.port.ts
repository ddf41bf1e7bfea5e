import type { CancellationSignal } from './cancellation-signal.ts';
import type { KvDType } from '../model/dtype.ts';
import type { ModelDescriptor } from '../model/model-descriptor.ts';
import type { ModelRunner } from './model-runner.port.ts';

/** Turns a descriptor and its files into a runner. One implementation per backend. */
export interface ModelLoader {
  /**
   * What `load` with these arguments would take of a device that has memory of its own; null where the runner's memory is
   * the host's. Opens no file and allocates nothing that stays; `numBlocks` may be all ones to learn the rest.
   * @throws KvasirError `unsupported-model`, `invalid-argument`, `out-of-memory`, `backend-unavailable`
   */
  planMemory(model: ModelDescriptor, options: LoadOptions): Promise<MemoryPlan | null>;

  /**
   * Maps the weights and allocates the pool and all workspace; nothing is allocated while decoding.
   * @throws KvasirError `file-unreadable`, `file-truncated`, `unsupported-model`, `out-of-memory`, `invalid-argument`,
   *   `backend-unavailable`, `aborted`
   */
  load(model: ModelDescriptor, options: LoadOptions): Promise<ModelRunner>;
}

export type ActivationMode = 'quantized' | 'float' | 'fast';

/** Bytes of a device, and of it what a runner would take by purpose. */
export interface MemoryPlan {
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly weightsBytes: number;
  /** Of the `numBlocks` asked about. */
  readonly kvPoolBytes: number;
  /** The most beside those two, also while loading. */
  readonly workspaceBytes: number;
  /** Page-locked memory of the host. */
  readonly pinnedBytes: number;
}

export interface LoadOptions {
  /** Blocks per layer group. */
  readonly numBlocks: readonly number[];
  readonly kvDType: KvDType;
  /**
   * `quantized`: operands rounded as the backend's products are fastest; on the CPU activations to 8 bits where weights are
   * block-quantized, on CUDA both to 16 bits, F32 weights excepted. `float`: float32 activations everywhere (oracle mode).
   * `fast`: as quantized, but large steps with 16-bit operands on matrix units, whose bits depend on what else is in the
   * step; `unsupported-model` where a backend has none.
   */
  readonly activations: ActivationMode;
  readonly maxBatchTokens: number;
  readonly maxBatchSequences: number;
  readonly maxBlocksPerSequence: number;
  /** 0: the backend chooses. */
  readonly numThreads: number;
  /** `auto`, or one the backend lists. */
  readonly instructionPath: string;
  /** Tests: fill pool and workspace with NaN patterns. */
  readonly poisonPool?: boolean;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
  readonly signal?: CancellationSignal;
}
