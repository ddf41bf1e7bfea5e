export { BatchEngine } from './batch-engine.ts';
export type { BatchEngineOptions, BatchEnginePorts, EngineSettings } from './engine-options.ts';
export type { CacheOptions } from './cache/cache-options.ts';
export type { RestorePolicy } from './cache/restore-planner.ts';
