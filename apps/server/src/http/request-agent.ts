import type { Context } from 'hono';
import type { RequestProblems } from './request-problems.ts';

/** Requests that name an agent run one prompt once: it is one memory. */
export interface AgentRequest {
  readonly agent_id?: string | null | undefined;
}

/** The agent a request names in its header or its body, null where it names none. */
export function agentOf(context: Context, request: AgentRequest): string | null {
  return request.agent_id ?? context.req.header('x-agent-id') ?? null;
}

/**
 * @param runs what the request would run more than once, by field
 */
export function checkAgent(
  context: Context,
  request: AgentRequest,
  runs: Readonly<Record<string, number>>,
  problems: RequestProblems,
): void {
  const header = context.req.header('x-agent-id');
  const field = request.agent_id ?? undefined;
  if (header !== undefined && field !== undefined && header !== field) {
    problems.add(
      'invalid_argument',
      'agent_id',
      `agent_id: expected the same as the header X-Agent-ID (${JSON.stringify(header.slice(0, 128))}) or one of them, found ${JSON.stringify(field.slice(0, 128))}`,
    );
  }
  if (header === undefined && field === undefined) return;
  for (const [name, count] of Object.entries(runs)) {
    if (count === 1) continue;
    problems.add('unsupported_parameter', name, `${name}: expected 1 in an agent's turn, found ${count}`);
  }
}
