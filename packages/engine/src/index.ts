export type { BatchEngineOptions, BatchEnginePorts, EngineSettings } from './engine-options.ts';
