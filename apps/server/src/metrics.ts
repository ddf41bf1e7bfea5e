import type { EngineStats, PrefixReuse, RunnerMemory } from '@kvasir/domain';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** What /metrics shows. Figures of the engine are read when they are asked for, so a step costs nothing. */
export class ServerMetrics {
  readonly registry = new Registry();
  readonly #requests: Counter<'route' | 'status'>;
  readonly #promptTokens: Counter;
  readonly #generatedTokens: Counter;
  readonly #firstTokenSeconds: Histogram;

  readonly #turns: Counter;
  readonly #reusedTokens: Counter<'tier'>;
  readonly #restoredBytes: Counter<'tier'>;
  readonly #reuseLimits: Counter<'cause'>;

  constructor(engineStats: () => EngineStats, memory: () => RunnerMemory, countAgents: () => number = () => 0) {
    const registers = [this.registry];
    this.#requests = new Counter({
      name: 'kvasir_http_requests_total',
      help: 'Requests answered, by route and status.',
      labelNames: ['route', 'status'],
      registers,
    });
    this.#promptTokens = new Counter({
      name: 'kvasir_prompt_tokens_total',
      help: 'Prompt tokens of finished requests.',
      registers,
    });
    this.#generatedTokens = new Counter({
      name: 'kvasir_generated_tokens_total',
      help: 'Tokens generated for finished requests.',
      registers,
    });
    this.#firstTokenSeconds = new Histogram({
      name: 'kvasir_first_token_seconds',
      help: 'From submission to the first token.',
      buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    });
    this.#turns = new Counter({ name: 'kvasir_agent_turns_total', help: 'Turns agents have kept.', registers });
    this.#reusedTokens = new Counter({
      name: 'kvasir_reused_tokens_total',
      help: 'Prompt tokens whose KV was there, by the tier it came from.',
      labelNames: ['tier'],
      registers,
    });
    this.#restoredBytes = new Counter({
      name: 'kvasir_restored_bytes_total',
      help: 'Bytes of KV brought back to the device, by tier.',
      labelNames: ['tier'],
      registers,
    });
    this.#reuseLimits = new Counter({
      name: 'kvasir_reuse_limits_total',
      help: 'Prompts by why no more of them was reused.',
      labelNames: ['cause'],
      registers,
    });
    addGauge(registers, 'kvasir_agents', 'Agents that are kept.', countAgents);
    addEngineGauges(registers, engineStats);
    addMemoryGauges(registers, memory);
  }

  countRequest(route: string, status: number): void {
    this.#requests.inc({ route, status: String(status) });
  }

  countGeneration(promptTokens: number, generatedTokens: number, firstTokenMs: number | null): void {
    this.#promptTokens.inc(promptTokens);
    this.#generatedTokens.inc(generatedTokens);
    if (firstTokenMs !== null) this.#firstTokenSeconds.observe(firstTokenMs / 1000);
  }

  countTurns(count: number): void {
    this.#turns.inc(count);
  }

  /** @param reuse null where nothing was admitted or the engine keeps no prefixes */
  countReuse(reuse: PrefixReuse | null): void {
    if (reuse === null) return;
    for (const tier of ['hot', 'warm', 'cold'] as const) this.#reusedTokens.inc({ tier }, reuse.fromTier[tier]);
    for (const tier of ['warm', 'cold'] as const) this.#restoredBytes.inc({ tier }, reuse.restoredBytes[tier]);
    this.#reuseLimits.inc({ cause: reuse.cause });
  }
}

function addMemoryGauges(registers: Registry[], memory: () => RunnerMemory): void {
  const gauge = (name: string, help: string, read: (memory: RunnerMemory) => number) =>
    addGauge(registers, name, help, () => read(memory()));
  gauge('kvasir_kv_pool_bytes', 'KV pool.', ({ kvPoolBytes }) => kvPoolBytes);
  gauge('kvasir_weights_mapped_bytes', 'Weights mapped from files.', ({ weightsMappedBytes }) => weightsMappedBytes);
  gauge('kvasir_weights_repacked_bytes', 'Copies of weights.', ({ weightsRepackedBytes }) => weightsRepackedBytes);
  gauge('kvasir_workspace_bytes', 'Buffers of a step.', ({ workspaceBytes }) => workspaceBytes);
  gauge('kvasir_pinned_bytes', 'Page-locked host memory on the way to a device.', ({ pinnedBytes }) => pinnedBytes);
  gauge('kvasir_host_bytes', 'Other host memory of a runner on a device.', ({ hostBytes }) => hostBytes);
  gauge(
    'kvasir_residency_checks_total',
    'Looks at where device memory lies.',
    ({ residencyChecks }) => residencyChecks,
  );
  gauge(
    'kvasir_residency_failures_total',
    'Looks that found memory elsewhere; more than 0 is a fault.',
    ({ residencyFailures }) => residencyFailures,
  );
  gauge(
    'kvasir_native_allocations_total',
    'Native allocations; flat while decoding.',
    ({ allocations }) => allocations,
  );
}

function addGauge(registers: Registry[], name: string, help: string, read: () => number): Gauge {
  return new Gauge({
    name,
    help,
    registers,
    collect() {
      this.set(read());
    },
  });
}

function addEngineGauges(registers: Registry[], engineStats: () => EngineStats): void {
  const gauge = (name: string, help: string, read: (stats: EngineStats) => number) =>
    addGauge(registers, name, help, () => read(engineStats()));
  gauge('kvasir_engine_steps_total', 'Steps run.', (stats) => stats.steps);
  gauge('kvasir_engine_failed_steps_total', 'Steps that failed.', (stats) => stats.failedSteps);
  gauge('kvasir_engine_step_seconds_total', 'Device time of all steps.', (stats) => stats.executeMs / 1000);
  gauge('kvasir_engine_prefill_tokens_total', 'Prompt tokens computed.', (stats) => stats.prefillTokens);
  gauge('kvasir_engine_output_tokens_total', 'Tokens accepted by generations.', (stats) => stats.outputTokens);
  gauge('kvasir_engine_discarded_tokens_total', 'Tokens sampled and dropped.', (stats) => stats.discardedTokens);
  gauge('kvasir_engine_preemptions_total', 'Sequences preempted.', (stats) => stats.preemptions);
  gauge('kvasir_sequences_running', 'Sequences that hold blocks.', (stats) => stats.running);
  gauge('kvasir_sequences_waiting', 'Sequences that wait for admission.', (stats) => stats.waiting);
  addLabelledGauge(
    registers,
    'kvasir_engine_batch_size_steps',
    'Steps by the sequences they carried.',
    ['sequences'],
    (set) => {
      for (const [sequences, steps] of engineStats().batchSizes.entries()) {
        if (steps > 0) set({ sequences: String(sequences) }, steps);
      }
    },
  );
  addLabelledGauge(registers, 'kvasir_blocks', 'KV blocks, by layer group and state.', ['group', 'state'], (set) => {
    for (const [group, blocks] of engineStats().blocks.entries()) {
      for (const state of ['free', 'used', 'retired'] as const) set({ group: String(group), state }, blocks[state]);
    }
  });
}

function addLabelledGauge(
  registers: Registry[],
  name: string,
  help: string,
  labelNames: readonly string[],
  collectAll: (set: (labels: Record<string, string>, value: number) => void) => void,
): Gauge {
  return new Gauge({
    name,
    help,
    labelNames,
    registers,
    collect() {
      collectAll((labels, value) => this.set(labels, value));
    },
  });
}
