// The real server as a process, and the few requests this experiment makes.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';

const main = path.resolve(import.meta.dirname, '../../apps/server/dist/main.js');

export class Server {
  readyMs;
  #child;
  #address;

  /** Resolves when the first answer of `/health` is there. `readyMs`: since the process was begun. */
  static async start(memoryDir) {
    const server = new Server();
    const start = performance.now();
    const child = spawn(
      process.execPath,
      [main, 'serve', '--port', '0', '--memory-dir', memoryDir, '--log-level', 'warn'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
        // The server refuses variables of its prefix that it does not know.
        env: Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'KVASIR_MEASURE')),
      },
    );
    server.#child = child;
    for await (const line of createInterface({ input: child.stdout })) {
      const found = /^Listening on (\S+)/.exec(line);
      if (found === null) continue;
      server.#address = found[1];
      break;
    }
    if (server.#address === undefined) throw new Error('expected an address, the server ended');
    child.stdout.resume();
    const answer = await fetch(`${server.#address}/health`);
    if (!answer.ok) throw new Error(`/health: expected 200, found ${answer.status}`);
    server.readyMs = performance.now() - start;
    return server;
  }

  async list() {
    const start = performance.now();
    await this.#request('GET', '/v1/agents?limit=100');
    return performance.now() - start;
  }

  /** A turn of an agent. `ms`: to the first piece of text. */
  async ask(agent, question) {
    const start = performance.now();
    const answer = await fetch(`${this.#address}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-agent-id': agent },
      body: JSON.stringify({
        model: 'default',
        messages: [{ role: 'user', content: question }],
        max_tokens: 4,
        temperature: 0,
        stream: true,
        stream_options: { include_usage: true },
      }),
    });
    if (!answer.ok) throw new Error(`chat: expected 200, found ${answer.status}: ${await answer.text()}`);
    let ms = null;
    let text = '';
    for await (const part of answer.body) {
      text += Buffer.from(part).toString();
      if (ms === null && text.includes('"content"')) ms = performance.now() - start;
    }
    const usages = [...text.matchAll(/^data: (\{.*"usage":\{.*)$/gm)].map((match) => JSON.parse(match[1]).usage);
    const usage = usages.at(-1);
    return {
      ms,
      usage: { promptTokens: usage.prompt_tokens, cachedTokens: usage.prompt_tokens_details.cached_tokens },
    };
  }

  async pin(agent, isPinned) {
    await this.#request('POST', `/v1/agents/${encodeURIComponent(agent)}/pin`, { tokens: isPinned ? 256 : 0 });
  }

  async stop() {
    this.#child.kill('SIGTERM');
    const [code] = await once(this.#child, 'exit');
    if (code !== 0) throw new Error(`expected the server to end with 0, found ${code}`);
  }

  async kill() {
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  async #request(method, route, body) {
    const init =
      body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
    const answer = await fetch(`${this.#address}${route}`, { method, ...init });
    if (!answer.ok)
      throw new Error(`${method} ${route}: expected success, found ${answer.status}: ${await answer.text()}`);
    return await answer.json();
  }
}
