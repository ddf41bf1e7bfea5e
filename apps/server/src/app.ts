import { OpenAPIHono } from '@hono/zod-openapi';
import type { Context, MiddlewareHandler } from 'hono';
import { cors } from 'hono/cors';
import { requestId } from 'hono/request-id';
import type { AppDependencies, AppEnvironment } from './http/app-environment.ts';
import { ERROR_TABLE, toErrorBody, toKvasirError } from './http/error-table.ts';
import { HttpProblem } from './http/http-problem.ts';
import { InvalidRequest } from './http/request-problems.ts';
import { requireTenant } from './http/tenants.ts';
import { awaitUpload } from './http/whole-upload.ts';
import { exportAgent, importAgent } from './routes/agent-files.ts';
import {
  createAgent,
  deleteAgent,
  forkAgent,
  inspectAgent,
  listAgents,
  pinAgent,
  rewindAgent,
} from './routes/agents.ts';
import { chatCompletions } from './routes/chat-completions.ts';
import { completions } from './routes/completions.ts';
import { health, live, ready } from './routes/health.ts';
import { getModel, listModels } from './routes/models.ts';
import { documentRoutes } from './routes/openapi.ts';

export type App = OpenAPIHono<AppEnvironment>;

/** The HTTP face of one served model. Does not listen: a test calls `app.request()`, the process entry binds a socket. */
export function createApp(dependencies: AppDependencies): App {
  const { options, metrics } = dependencies;
  const app: App = new OpenAPIHono<AppEnvironment>();

  app.use(requestId());
  app.use(logRequests(dependencies));
  app.use(awaitUpload());
  if (options.corsOrigin !== null)
    app.use(cors({ origin: options.corsOrigin, exposeHeaders: ['x-request-id', 'x-kvasir-cache'] }));
  app.get('/health', (context) => health(context, dependencies));
  app.get('/health/live', live);
  app.get('/health/ready', (context) => ready(context, dependencies));

  app.use(requireTenant(options));
  app.post('/v1/chat/completions', (context) => chatCompletions(context, dependencies));
  app.post('/v1/completions', (context) => completions(context, dependencies));
  app.get('/v1/models', (context) => listModels(context, dependencies));
  app.get('/v1/models/*', (context) => getModel(context, dependencies));
  app.post('/v1/agents', (context) => createAgent(context, dependencies));
  app.get('/v1/agents', (context) => listAgents(context, dependencies));
  app.get('/v1/agents/:name', (context) => inspectAgent(context, dependencies));
  app.delete('/v1/agents/:name', (context) => deleteAgent(context, dependencies));
  app.post('/v1/agents/:name/fork', (context) => forkAgent(context, dependencies));
  app.post('/v1/agents/:name/rewind', (context) => rewindAgent(context, dependencies));
  app.post('/v1/agents/:name/pin', (context) => pinAgent(context, dependencies));
  app.get('/v1/agents/:name/export', (context) => exportAgent(context, dependencies));
  app.post('/v1/agents/:name/import', (context) => importAgent(context, dependencies));
  app.get('/metrics', async (context) =>
    context.text(await metrics.registry.metrics(), 200, { 'content-type': metrics.registry.contentType }),
  );
  documentRoutes(app);

  refuseOtherMethods(app);
  app.notFound((context) => {
    throw new HttpProblem(404, 'not_found', `path: expected a known one, found ${context.req.path}; see /openapi.json`);
  });
  app.onError((error, context) => respondWithError(error, context, dependencies));
  return app;
}

function respondWithError(error: Error, context: Context<AppEnvironment>, { log }: AppDependencies): Response {
  if (error instanceof HttpProblem) return context.json(error.toBody(), error.status);
  if (error instanceof InvalidRequest) return context.json(error.toBody(), 400);
  const failure = toKvasirError(error);
  const row = ERROR_TABLE[failure.code];
  if (row.status >= 500) {
    log.error(
      { requestId: context.get('requestId'), code: failure.code, facts: failure.facts, err: failure },
      failure.message,
    );
  }
  if (row.status === 401) context.header('www-authenticate', 'Bearer');
  if (row.retriable && (row.status === 429 || row.status === 503)) context.header('retry-after', '1');
  return context.body(JSON.stringify(toErrorBody(failure)), row.status as 400, { 'content-type': 'application/json' });
}

function logRequests({ log, metrics }: AppDependencies): MiddlewareHandler<AppEnvironment> {
  return async (context, next) => {
    const startMs = performance.now();
    await next();
    const { method, path } = context.req;
    const { status } = context.res;
    metrics.countRequest(context.req.routePath, status);
    const elapsedMs = Math.round(performance.now() - startMs);
    log.info({ requestId: context.get('requestId'), method, path, status, elapsedMs }, 'request answered');
  };
}

/** Paths that exist answer other methods with 405 and what they allow. */
function refuseOtherMethods(app: App): void {
  const allowed = new Map<string, Set<string>>();
  for (const { path, method } of app.routes) {
    if (method === 'ALL') continue;
    const methods = allowed.get(path) ?? new Set();
    allowed.set(path, methods.add(method));
    if (method === 'GET') methods.add('HEAD');
  }
  for (const [path, methods] of allowed) {
    const allow = [...methods].join(', ');
    app.all(path, (context) => {
      context.header('allow', allow);
      throw new HttpProblem(405, 'method_not_allowed', `method: expected ${allow}, found ${context.req.method}`);
    });
  }
}
