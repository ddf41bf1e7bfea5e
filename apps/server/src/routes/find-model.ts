import { KvasirError } from '@kvasir/domain';
import type { ServedModel } from '../generation/served-model.ts';

/** @throws KvasirError `model-not-found` naming the loaded model */
export function requireModel(model: ServedModel, requested: string): void {
  if (requested === model.name || requested === 'default') return;
  throw new KvasirError(
    'model-not-found',
    `model: expected ${JSON.stringify(model.name)} (or "default"), the one loaded, found ${JSON.stringify(requested.slice(0, 200))}`,
    { facts: { param: 'model', loaded: model.name } },
  );
}
