import type { IncomingMessage } from 'node:http';
import type { ServedModel } from '../generation/served-model.ts';
import type { ServerMetrics } from '../metrics.ts';

/** What the routes need; handed in by the container, or by a test with fakes. */
export interface AppDependencies {
  readonly model: ServedModel;
  readonly metrics: ServerMetrics;
  readonly log: AppLog;
  readonly options: AppOptions;
  /** Set once shutdown begins: readiness goes, running requests stay. */
  readonly isStopping: () => boolean;
}

export interface AppOptions {
  /** The one key of a server with one tenant. */
  readonly apiKey: string | null;
  /** Keys by tenant. */
  readonly apiKeys: Readonly<Record<string, readonly string[]>> | null;
  readonly corsOrigin: string | null;
  readonly maxBodyBytes: number;
  readonly maxImportBytes: number;
}

/** The part of a pino logger the routes use. */
export interface AppLog {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

/** Hono's environment: what middleware leaves for handlers. */
export interface AppEnvironment {
  Variables: { requestId: string; tenant: string };
  /** Node's side of the request, where there is a socket. */
  Bindings: { incoming?: IncomingMessage };
}
