import type { CacheStats } from '@kvasir/domain';
import type { Context } from 'hono';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';

/** GET /health: liveness, readiness and the engine's counters. 503 when not ready, like /health/ready. */
export function health(context: Context<AppEnvironment>, dependencies: AppDependencies): Response {
  const { model } = dependencies;
  const stats = model.engine.stats();
  const reason = unreadyReason(dependencies);
  const body = {
    status: reason === null ? 'ok' : 'unavailable',
    live: true,
    ready: reason === null,
    ...(reason === null ? {} : { reason }),
    model: model.name,
    backend: model.facts.backend,
    device: model.facts.device,
    numericsId: model.facts.numericsId,
    steps: stats.steps,
    stepsInFlight: stats.stepsInFlight,
    running: stats.running,
    waiting: stats.waiting,
    outputTokens: stats.outputTokens,
    blocks: stats.blocks.map(({ total, free, used, retired, peak }) => ({ total, free, used, retired, peak })),
    memory: model.memory(),
    // Without running requests the used blocks are the cached ones: anything else would be a leak.
    cache: stats.cache === null ? null : cacheFigures(stats.cache),
  };
  return context.json(body, reason === null ? 200 : 503);
}

function cacheFigures({ hotBlocks, evictableBlocks, warmBlocks, warmBytes }: CacheStats): object {
  return { hotBlocks, evictableBlocks, warmBlocks, warmBytes };
}

/** GET /health/live: the process answers. */
export function live(context: Context<AppEnvironment>): Response {
  return context.json({ status: 'ok', live: true });
}

/** GET /health/ready: the process takes requests. */
export function ready(context: Context<AppEnvironment>, dependencies: AppDependencies): Response {
  const reason = unreadyReason(dependencies);
  return reason === null
    ? context.json({ status: 'ok', ready: true })
    : context.json({ status: 'unavailable', ready: false, reason }, 503);
}

function unreadyReason({ model, isStopping }: AppDependencies): string | null {
  if (isStopping()) return 'shutting down';
  const { failure } = model.engine.stats();
  return failure === null ? null : `${failure.code}: ${failure.message}`;
}
