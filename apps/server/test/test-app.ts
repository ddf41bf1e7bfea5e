import type { ChatTemplate, Conversation, RenderOptions } from '@kvasir/domain';
import type { DetokenizerOptions, TextTokenizer } from '@kvasir/tokenizer';
import { createApp, type App } from '../src/app.ts';
import type { AppOptions } from '../src/http/app-environment.ts';
import { ServerMetrics } from '../src/metrics.ts';
import { ScriptedEngine } from './scripted-engine.ts';

/** Ids are UTF-8 bytes; 256 is a special token. */
export function createByteTokenizer(): TextTokenizer {
  const encoder = new TextEncoder();
  const createDetokenizer = (_options?: DetokenizerOptions) => {
    const decoder = new TextDecoder();
    return {
      push: (id: number) => (id > 255 ? '' : decoder.decode(Uint8Array.of(id), { stream: true })),
      flush: () => decoder.decode(),
    };
  };
  return {
    info: { vocabularySize: 257, bosId: null, eosId: 256, stopIds: [256], addBos: false, addEos: false },
    specialTexts: ['<end>'],
    encode: (text) => Promise.resolve(Int32Array.from(encoder.encode(text))),
    encodeSegments: (segments) =>
      Promise.resolve(Int32Array.from(encoder.encode(segments.map((s) => s.text).join('')))),
    tokenBytes: (id) => (id > 255 ? encoder.encode('<end>') : Uint8Array.of(id)),
    decode: (ids) => new TextDecoder().decode(Uint8Array.from(Array.from(ids))),
    createDetokenizer,
    specialId: (text) => (text === '<end>' ? 256 : null),
    dispose: () => Promise.resolve(),
  };
}

/** `role: content` lines; remembers what it was asked to render. */
export class LineTemplate implements ChatTemplate {
  readonly rendered: { conversation: Conversation; options: RenderOptions }[] = [];

  async render(conversation: Conversation, options: RenderOptions) {
    this.rendered.push({ conversation, options });
    const text = conversation.messages.map(({ role, content }) => `${role}: ${String(content)}\n`).join('');
    return [{ text, special: false }];
  }
}

export interface TestApp {
  readonly app: App;
  readonly engine: ScriptedEngine;
  readonly template: LineTemplate;
  readonly logged: object[];
  stopping: boolean;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

const MEMORY = {
  weightsMappedBytes: 1,
  weightsRepackedBytes: 2,
  kvPoolBytes: 3,
  workspaceBytes: 4,
  allocations: 5,
};

export function createTestApp(options: Partial<AppOptions> = {}): TestApp {
  const engine = new ScriptedEngine();
  const template = new LineTemplate();
  const logged: object[] = [];
  const record = (facts: object, message: string) => void logged.push({ ...facts, message });
  const testApp = { stopping: false };
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
      tokenizer: createByteTokenizer(),
      template,
      engine,
      stopIds: [256],
      memory: () => MEMORY,
    },
    metrics: new ServerMetrics(
      () => engine.stats(),
      () => MEMORY,
    ),
    log: { debug: record, info: record, warn: record, error: record },
    options: { apiKey: null, corsOrigin: null, maxBodyBytes: 2 ** 20, ...options },
    isStopping: () => testApp.stopping,
  });
  const post = async (path: string, body: unknown, headers: Record<string, string> = {}) =>
    app.request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  return Object.assign(testApp, { app, engine, template, logged, post });
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
