import type { Context } from 'hono';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import type { ServedModel } from '../generation/served-model.ts';
import { requireModel } from './find-model.ts';

/** GET /v1/models */
export function listModels(context: Context<AppEnvironment>, { model }: AppDependencies): Response {
  return context.json({ object: 'list', data: [toModelObject(model)] });
}

/** GET /v1/models/:id, where an id may hold slashes. */
export function getModel(context: Context<AppEnvironment>, { model }: AppDependencies): Response {
  const id = decodeURIComponent(context.req.path.slice('/v1/models/'.length));
  requireModel(model, id);
  return context.json(toModelObject(model));
}

function toModelObject({ name, created, facts }: ServedModel): object {
  return {
    id: name,
    object: 'model',
    created,
    owned_by: 'kvasir',
    context_length: facts.contextLength,
    architecture: facts.architecture,
  };
}
