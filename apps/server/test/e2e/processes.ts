import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateGguf, SMALL_SHAPE, type ModelShape } from '@kvasir/reference';
import OpenAI from 'openai';

/** The backend these tests are about: the one KVASIR_TEST_BACKEND names, else what a server finds by itself here. */
export const TEST_BACKEND = process.env['KVASIR_TEST_BACKEND'] ?? null;
// Several servers share a device here.
const ON_BACKEND: Readonly<Record<string, string>> =
  TEST_BACKEND === null ? {} : { KVASIR_BACKEND: TEST_BACKEND, KVASIR_GPU_MEMORY_UTILIZATION: '0.2' };

// The built command line, as a user runs it: the workspace's build comes before these tests.
const MAIN = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../dist/main.js');

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder of its own for one test file, with models generated into it. */
export class Workbench {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'kvasir-e2e-'));

  generateModel(name: string, shape: Partial<ModelShape> = {}, format = 'q8_0'): string {
    const file = path.join(this.directory, `${name}.gguf`);
    writeFileSync(file, generateGguf({ ...SMALL_SHAPE, ...shape }, format, 7));
    return file;
  }

  write(name: string, content: string): string {
    const file = path.join(this.directory, name);
    writeFileSync(file, content);
    return file;
  }

  path(name: string): string {
    return path.join(this.directory, name);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Runs one command to its end. */
export function runCli(
  args: readonly string[],
  options: { input?: string; environment?: Record<string, string> } = {},
): Promise<Finished> {
  const child = start(args, options.environment);
  const output = collect(child);
  child.stdin?.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout: output.stdout(), stderr: output.stderr() }));
  });
}

/** A server process that listens on a port of its own. */
export class ServerProcess {
  readonly url: string;
  readonly output: Output;
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, output: Output, url: string, exited: ServerProcess['exited']) {
    this.#child = child;
    this.output = output;
    this.url = url;
    this.exited = exited;
  }

  static async start(args: readonly string[], environment: Record<string, string> = {}): Promise<ServerProcess> {
    const child = start(['serve', '--port', '0', ...args], environment);
    const output = collect(child);
    const exited: ServerProcess['exited'] = new Promise((resolve) => {
      child.on('close', (code, signal) => resolve({ code, signal }));
    });
    const listening = new Promise<string>((resolve) => {
      child.stdout?.on('data', () => {
        const url = /Listening on (\S+)/.exec(output.stdout())?.[1];
        if (url !== undefined) resolve(url);
      });
    });
    const url = await Promise.race([
      listening,
      exited.then(({ code }) => {
        throw new Error(`expected the server to listen, found it ended with ${code}: ${output.stderr()}`);
      }),
    ]);
    return new ServerProcess(child, output, url, exited);
  }

  client(apiKey = 'none'): OpenAI {
    return new OpenAI({ baseURL: `${this.url}/v1`, apiKey, maxRetries: 0 });
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async health(): Promise<Health> {
    return (await (await fetch(`${this.url}/health`)).json()) as Health;
  }

  /** Waits until the engine has nothing left to do. */
  async idle(): Promise<Health> {
    for (;;) {
      const health = await this.health();
      if (health.running + health.waiting + health.stepsInFlight === 0) return health;
    }
  }

  /** Waits until the engine runs something. */
  async busy(): Promise<Health> {
    for (let asked = 0; asked < 1000; asked += 1) {
      const health = await this.health();
      if (health.running > 0) return health;
    }
    throw new Error('expected the engine to run something, found it idle after 1000 questions');
  }

  async stop(): Promise<void> {
    this.signal('SIGTERM');
    await this.exited;
  }
}

export interface Health {
  readonly ready: boolean;
  readonly steps: number;
  readonly stepsInFlight: number;
  readonly running: number;
  readonly waiting: number;
  readonly outputTokens: number;
  readonly blocks: readonly { readonly total: number; readonly free: number }[];
  readonly cache: { readonly hotBlocks: number } | null;
}

/** Blocks of an idle server that are neither free nor keep a prefix: there must be none. */
export function leakedBlocks({ blocks, cache }: Health): number {
  const used = blocks.reduce((sum, { total, free }) => sum + total - free, 0);
  return used - (cache?.hotBlocks ?? 0);
}

interface Output {
  stdout(): string;
  stderr(): string;
}

function start(args: readonly string[], environment: Record<string, string> = {}): ChildProcess {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('KVASIR_'));
  return spawn(process.execPath, [MAIN, ...args], {
    cwd: tmpdir(),
    // Nothing of these tests belongs among a user's agents.
    env: { ...Object.fromEntries(inherited), KVASIR_MEMORY_DIR: 'none', ...ON_BACKEND, ...environment },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

function collect(child: ChildProcess): Output {
  const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  child.stdout?.on('data', (chunk: Buffer) => chunks.stdout.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => chunks.stderr.push(chunk));
  return {
    stdout: () => Buffer.concat(chunks.stdout).toString('utf8'),
    stderr: () => Buffer.concat(chunks.stderr).toString('utf8'),
  };
}
