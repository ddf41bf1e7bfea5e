import { FakeAgentArchive, FakeAgentMemory, FakeBlockStore, RecordingNarrator } from '@kvasir/adapter-fake';
import type { ChatTemplate, Conversation, PromptSegment, RenderOptions } from '@kvasir/domain';
import { AgentService, TextIndex } from '@kvasir/engine';
import { crc32 } from 'node:zlib';
import { createApp, type App } from '../src/app.ts';
import { PromptEncoder } from '../src/generation/prompt-encoder.ts';
import type { AppOptions } from '../src/http/app-environment.ts';
import { ServerMetrics } from '../src/metrics.ts';
import { createByteTokenizer } from './byte-tokenizer.ts';
import { ScriptedEngine } from './scripted-engine.ts';

/** `role: content` lines; remembers what it was asked to render. `write` makes another template of it. */
export class LineTemplate implements ChatTemplate {
  write: (conversation: Conversation) => readonly PromptSegment[] = ({ messages }) => [
    { text: messages.map(({ role, content }) => `${role}: ${String(content)}\n`).join(''), special: false },
  ];
  readonly rendered: { conversation: Conversation; options: RenderOptions }[] = [];

  async render(conversation: Conversation, options: RenderOptions) {
    this.rendered.push({ conversation, options });
    return this.write(conversation);
  }
}

export interface TestApp {
  readonly app: App;
  readonly engine: ScriptedEngine;
  readonly template: LineTemplate;
  readonly logged: object[];
  readonly agents: AgentService;
  readonly archive: FakeAgentArchive;
  readonly memory: FakeAgentMemory;
  stopping: boolean;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

const MEMORY = {
  weightsMappedBytes: 1,
  weightsRepackedBytes: 2,
  kvPoolBytes: 3,
  workspaceBytes: 4,
  pinnedBytes: 6,
  hostBytes: 7,
  allocations: 5,
  residencyChecks: 8,
  residencyFailures: 0,
};

/** Agents in memory, and what they are made of. */
export interface TestAgents {
  readonly agents: AgentService;
  readonly archive: FakeAgentArchive;
  readonly memory: FakeAgentMemory;
}

export async function createTestAgents(before?: TestAgents): Promise<TestAgents> {
  const archive = before?.archive ?? new FakeAgentArchive(new FakeBlockStore());
  const memory = before?.memory ?? new FakeAgentMemory();
  const narrator = new RecordingNarrator();
  const now = () => Date.now();
  const agents = await AgentService.open({ archive, memory, narrator, now, checksum: crc32, vocabularySize: 257 });
  return { agents, archive, memory };
}

const FRESH = await createTestAgents();

/** @param kept agents of an earlier app, as after a restart */
export function createTestApp(options: Partial<AppOptions> = {}, kept: TestAgents = FRESH): TestApp {
  const engine = new ScriptedEngine();
  const template = new LineTemplate();
  const logged: object[] = [];
  const record = (facts: object, message: string) => void logged.push({ ...facts, message });
  const testApp = { stopping: false };
  const tokenizer = createByteTokenizer();
  const app = createApp({
    model: {
      name: 'test-model',
      created: 1,
      facts: {
        architecture: 'llama',
        contextLength: 1024,
        vocabularySize: 257,
        backend: 'fake',
        device: 'memory',
        numericsId: 'fake-1',
        kvDType: 'f16',
      },
      tokenizer,
      template,
      prompts: new PromptEncoder(tokenizer, new TextIndex({ maxBytes: 2 ** 20 })),
      engine,
      agents: kept.agents,
      stopIds: [256],
      memory: () => MEMORY,
      countAgents: () => kept.agents.size,
      warmUp: () => undefined,
      flush: () => Promise.resolve(),
    },
    metrics: new ServerMetrics(
      () => engine.stats(),
      () => MEMORY,
      () => kept.agents.size,
    ),
    log: { debug: record, info: record, warn: record, error: record },
    options: {
      apiKey: null,
      apiKeys: null,
      corsOrigin: null,
      maxBodyBytes: 2 ** 20,
      maxImportBytes: 2 ** 24,
      ...options,
    },
    isStopping: () => testApp.stopping,
  });
  const post = async (path: string, body: unknown, headers: Record<string, string> = {}) =>
    app.request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  return Object.assign(testApp, { app, engine, template, logged, post, ...kept });
}

/** A script that says `text` and then ends as told. */
export function say(text: string, end: 'stop' | 'hang' = 'stop') {
  const tokenIds = [...new TextEncoder().encode(text)];
  return () => ({
    tokenIds,
    end: end === 'stop' ? ({ reason: 'stop', stopTokenId: 256 } as const) : ('hang' as const),
  });
}

/** Data of every event of a finished server-sent stream. */
export async function readEvents(response: Response): Promise<string[]> {
  const text = await response.text();
  return text
    .split('\n\n')
    .filter((event) => event !== '')
    .map(
      (event) =>
        event
          .split('\n')
          .find((line) => line.startsWith('data: '))
          ?.slice(6) ?? '',
    );
}
