import { type AgentName, type AgentSummary, KvasirError } from '@kvasir/domain';

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$/;

/** @throws KvasirError `invalid-argument`; the message shows what was found only where it is short */
export function checkAgentName({ tenant, name }: AgentName): void {
  for (const [what, text] of Object.entries({ tenant, name })) {
    if (typeof text === 'string' && NAME.test(text)) continue;
    const found =
      typeof text === 'string' && text.length <= 128 ? JSON.stringify(text) : `${String(text).length} characters`;
    throw new KvasirError(
      'invalid-argument',
      `agent ${what}: expected 1 to 128 of A-Z a-z 0-9 . _ : @ - with a letter or digit first, found ${found}`,
      { facts: { param: what } },
    );
  }
}

interface Tenant {
  readonly agents: Map<string, AgentSummary>;
  /** Ascending by UTF-16 units. */
  readonly names: string[];
}

/** Every agent in brief, found by tenant and name: 10,000 of them take a few MB. */
export class AgentRoster {
  readonly #tenants = new Map<string, Tenant>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Takes many at once, each new. Cost: O(n log n). */
  takeIn(summaries: readonly AgentSummary[]): void {
    for (const summary of summaries) {
      const tenant = this.#tenant(summary.tenant);
      tenant.agents.set(summary.name, summary);
      tenant.names.push(summary.name);
    }
    for (const { names } of this.#tenants.values()) names.sort(byUnits);
    this.#size += summaries.length;
  }

  find({ tenant, name }: AgentName): AgentSummary | null {
    return this.#tenants.get(tenant)?.agents.get(name) ?? null;
  }

  /** @throws KvasirError `agent-not-found` */
  require(agent: AgentName): AgentSummary {
    const summary = this.find(agent);
    if (summary !== null) return summary;
    throw new KvasirError(
      'agent-not-found',
      `agent: expected one that exists, found none named ${JSON.stringify(agent.name)}; create it or list what there is`,
      { facts: { param: 'agent', name: agent.name } },
    );
  }

  /** @throws KvasirError `agent-exists` */
  requireAbsent(agent: AgentName): void {
    if (this.find(agent) === null) return;
    throw new KvasirError(
      'agent-exists',
      `agent: expected a name nobody has, found ${JSON.stringify(agent.name)} taken; choose another or delete it first`,
      { facts: { param: 'name', name: agent.name } },
    );
  }

  put(summary: AgentSummary): void {
    const { agents, names } = this.#tenant(summary.tenant);
    if (!agents.has(summary.name)) {
      names.splice(firstAfter(names, summary.name), 0, summary.name);
      this.#size += 1;
    }
    agents.set(summary.name, summary);
  }

  remove({ tenant, name }: AgentName): void {
    const found = this.#tenants.get(tenant);
    if (found === undefined || !found.agents.delete(name)) return;
    found.names.splice(firstAfter(found.names, name) - 1, 1);
    if (found.agents.size === 0) this.#tenants.delete(tenant);
    this.#size -= 1;
  }

  /** By name, ascending, from the one after `after`; at most `limit`. */
  page(tenant: string, after: string | undefined, limit: number): AgentSummary[] {
    const found = this.#tenants.get(tenant);
    if (found === undefined) return [];
    const start = after === undefined ? 0 : firstAfter(found.names, after);
    return found.names.slice(start, start + limit).map((name) => found.agents.get(name) as AgentSummary);
  }

  *all(): Generator<AgentSummary> {
    for (const { agents } of this.#tenants.values()) yield* agents.values();
  }

  #tenant(name: string): Tenant {
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) {
      tenant = { agents: new Map(), names: [] };
      this.#tenants.set(name, tenant);
    }
    return tenant;
  }
}

function byUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Index of the first name greater than `name`. */
function firstAfter(names: readonly string[], name: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((names[middle] as string) <= name) low = middle + 1;
    else high = middle;
  }
  return low;
}
