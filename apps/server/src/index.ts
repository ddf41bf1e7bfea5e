export { createApp, type App } from './app.ts';
export { ConfigError, loadConfig, type Config, type ConfigSources } from './config.ts';
export { createKvasir, type EngineNeeds, type Kvasir, type LoadedModel, type ProgressHooks } from './container.ts';
export type { ModelFacts, ServedModel } from './generation/served-model.ts';
export type { AppDependencies, AppLog, AppOptions } from './http/app-environment.ts';
export { ERROR_TABLE, type ErrorRow } from './http/error-table.ts';
export { listen, type Listener } from './listen.ts';
export { ServerMetrics } from './metrics.ts';
export { SETTINGS, type Setting, type SettingName, type Settings } from './settings.ts';
