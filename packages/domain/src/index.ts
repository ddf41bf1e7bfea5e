export { AgentBlocks } from './agents/agent-blocks.ts';
export {
  applyAgentEntry,
  isBlockHash,
  MAX_LAYER_GROUPS,
  MAX_RECENT_USES,
  summarizeAgent,
} from './agents/agent-manifest.ts';
export type {
  AgentEntry,
  AgentManifest,
  AgentSummary,
  AgentTurn,
  AgentUse,
  AgentUses,
  BlockReference,
  CommitEntry,
  NoteEntry,
} from './agents/agent-manifest.ts';
export type { AgentMemory, MemoryBlock, MemoryBlockListing } from './agents/agent-memory.ts';
export { importedNumerics, kvScopeOf } from './agents/kv-scope.ts';
export { ERROR_CODES, KvasirError, isKvasirError } from './errors/kvasir-error.ts';
export type { ErrorCode, ErrorFacts } from './errors/kvasir-error.ts';
export { BlockPool } from './blocks/block-pool.ts';
export type { BlockPoolStats } from './blocks/block-pool.ts';
export { BlockTable } from './blocks/block-table.ts';
export type { KvBlock } from './blocks/kv-block.ts';
export {
  BLOCK_LAYOUTS,
  KV_DTYPES,
  KV_FORMATS,
  KV_GROUP_VALUES,
  kvDTypeTakes,
  kvRecordBytes,
  TENSOR_DTYPES,
} from './model/dtype.ts';
export type { BlockLayout, KvDType, TensorDType } from './model/dtype.ts';
export { attentionParityTokens } from './model/attention-parity.ts';
export { BLOCK_TOKENS, ModelCacheSpec } from './model/model-cache-spec.ts';
export type { CacheGroupSpec, CacheLayerSpec } from './model/model-cache-spec.ts';
export { TENSOR_ROLES } from './model/model-descriptor.ts';
export type {
  Activation,
  AttentionKind,
  FeedForward,
  LayerDescriptor,
  ModelDescriptor,
  RopeDescriptor,
  TensorDescriptor,
  TensorRole,
} from './model/model-descriptor.ts';
export type { AgentArchive, AgentArchiveUsage, NewAgent } from './ports/agent-archive.port.ts';
export type {
  AgentCut,
  AgentDetails,
  AgentDirectory,
  AgentImport,
  AgentName,
  AgentTiers,
  AgentTurnInProgress,
  FinishedTurn,
  TierHolding,
} from './ports/agent-directory.port.ts';
export { BLOCK_MISSES } from './ports/block-store.port.ts';
export type {
  BlockKey,
  BlockListing,
  BlockLoad,
  BlockMiss,
  BlockPayload,
  BlockRequest,
  BlockStore,
  BlockStoreUsage,
  BlockStoring,
  CacheIdentity,
  PayloadShape,
} from './ports/block-store.port.ts';
export type {
  ChatMessage,
  ChatTemplate,
  Conversation,
  PromptSegment,
  RenderOptions,
} from './ports/chat-template.port.ts';
export type { CancellationSignal } from './ports/cancellation-signal.ts';
export type { Clock } from './ports/clock.port.ts';
export type {
  EngineLimits,
  CacheStats,
  EngineStats,
  Generation,
  GenerationBatch,
  GenerationEngine,
  GenerationFinish,
  GenerationOutput,
  GenerationRequest,
  GenerationStats,
  LogitsRequest,
  PrefixReuse,
  ReuseLimit,
  ScoreRequest,
  StepReport,
  TokenEvent,
  TokenLogprob,
} from './ports/generation-engine.port.ts';
export type { ActivationMode, LoadOptions, MemoryPlan, ModelLoader } from './ports/model-loader.port.ts';
export { ROW_FLAGS } from './ports/model-runner.port.ts';
export type {
  BlockCopy,
  ModelRunner,
  RunnerInfo,
  RunnerMemory,
  SamplerAdmission,
  StepBatch,
  StepGroup,
  StepHandle,
  StepResult,
} from './ports/model-runner.port.ts';
export type { Narrator, NarratorEvent } from './ports/narrator.port.ts';
export type { Detokenizer, EncodeOptions, Tokenizer, TokenizerInfo } from './ports/tokenizer.port.ts';
export { GREEDY } from './sequences/sampling-params.ts';
export type { SamplingParams } from './sequences/sampling-params.ts';
export { Sequence } from './sequences/sequence.ts';
export type { SequenceGoal, SequenceState } from './sequences/sequence.ts';
