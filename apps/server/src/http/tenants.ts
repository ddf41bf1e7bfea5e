import { createHash, timingSafeEqual } from 'node:crypto';
import { KvasirError } from '@kvasir/domain';
import type { MiddlewareHandler } from 'hono';
import type { AppEnvironment, AppOptions } from './app-environment.ts';

/** Whose requests are those without a key, and with the one key of a server that has one. */
const DEFAULT_TENANT = 'default';

/**
 * Says whose a request is: the tenant its key was configured for, never a field of the request. Compares digests, and all
 * of them, so neither length nor content of a key shows in the time an answer takes.
 */
export function requireTenant({ apiKey, apiKeys }: AppOptions): MiddlewareHandler<AppEnvironment> {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  const known = Object.entries(apiKeys ?? {}).flatMap(([tenant, keys]) => keys.map((key) => ({ tenant, key })));
  if (apiKey !== null) known.push({ tenant: DEFAULT_TENANT, key: apiKey });
  const keys = known.map(({ tenant, key }) => ({ tenant, digest: digest(`Bearer ${key}`) }));
  return async (context, next) => {
    const found = digest(context.req.header('authorization') ?? '');
    const owners = keys.filter((key) => timingSafeEqual(key.digest, found));
    if (keys.length > 0 && owners.length === 0) {
      throw new KvasirError(
        'unauthorized',
        'authorization: expected "Bearer" and a configured key, found neither or another',
      );
    }
    context.set('tenant', owners[0]?.tenant ?? DEFAULT_TENANT);
    await next();
  };
}
