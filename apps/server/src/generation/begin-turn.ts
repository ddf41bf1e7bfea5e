import { KvasirError } from '@kvasir/domain';
import type { AgentDirectory, AgentTurnInProgress, CancellationSignal } from '@kvasir/domain';
import type { ServedModel } from './served-model.ts';

/** @throws KvasirError `unsupported-parameter` where the server keeps no agents */
export function requireAgents(model: ServedModel): AgentDirectory {
  if (model.agents !== null) return model.agents;
  throw new KvasirError(
    'unsupported-parameter',
    'agent: expected a server that keeps agents, found one with memoryDir none; give it a directory',
    { facts: { param: 'agent_id' } },
  );
}

/**
 * The turn of the agent a request names, null where it names none. It waits for the turn before; an agent nobody has is
 * made.
 * @throws KvasirError as `AgentDirectory.beginTurn`, `unsupported-parameter`
 */
export async function beginTurn(
  model: ServedModel,
  tenant: string,
  name: string | null,
  signal: CancellationSignal,
): Promise<AgentTurnInProgress | null> {
  if (name === null) return null;
  return requireAgents(model).beginTurn({ tenant, name }, { createAbsent: true, signal });
}

/** Gives a turn back where `work`, which would have taken it over, fails. */
export async function withTurn<Value>(
  turn: AgentTurnInProgress | null,
  work: (turn: AgentTurnInProgress | null) => Promise<Value>,
): Promise<Value> {
  try {
    return await work(turn);
  } catch (error) {
    turn?.release();
    throw error;
  }
}
