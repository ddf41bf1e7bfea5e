export { createApp, type App } from './app.ts';
export type { AppDependencies, AppLog, AppOptions } from './http/app-environment.ts';
export type { ModelFacts, ServedModel } from './generation/served-model.ts';
export { ServerMetrics } from './metrics.ts';
export { ERROR_TABLE, type ErrorRow } from './http/error-table.ts';
