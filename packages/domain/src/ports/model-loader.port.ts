import type { CancellationSignal } from './cancellation-signal.ts';
import type { KvDType } from '../model/dtype.ts';
import type { ModelDescriptor } from '../model/model-descriptor.ts';
import type { ModelRunner } from './model-runner.port.ts';

/** Turns a descriptor and its files into a runner. One implementation per backend. */
export interface ModelLoader {
  /**
   * Maps the weights and allocates the pool and all workspace; nothing is allocated while decoding.
   * @throws KvasirError `file-unreadable`, `file-truncated`, `unsupported-model`, `out-of-memory`, `invalid-argument`,
   *   `backend-unavailable`, `aborted`
   */
  load(model: ModelDescriptor, options: LoadOptions): Promise<ModelRunner>;
}

export type ActivationMode = 'quantized' | 'float' | 'fast';

export interface LoadOptions {
  /** Blocks per layer group. */
  readonly numBlocks: readonly number[];
  readonly kvDType: KvDType;
  /**
   * `quantized`: integer products for block-quantized weights. `float`: float32 activations everywhere (oracle mode).
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
