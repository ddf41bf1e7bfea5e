export { BatchEngine } from './batch-engine.ts';
export type { BatchEngineOptions, BatchEnginePorts, EngineSettings } from './engine-options.ts';
