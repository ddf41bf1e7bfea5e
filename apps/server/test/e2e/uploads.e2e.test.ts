import { once } from 'node:events';
import { Agent, request, type IncomingMessage } from 'node:http';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ServerProcess, Workbench } from './processes.ts';

// Refusals that are decided long before the upload is over, and still reach the client.

const LIMIT = 100_000;
const bench = new Workbench();
let server: ServerProcess;
beforeAll(async () => {
  const model = bench.generateModel('generated');
  const limits = ['--max-body-bytes', String(LIMIT), '--api-key', 'sesame-open'];
  server = await ServerProcess.start(['--model', model, '--log-level', 'warn', ...limits]);
});
afterAll(async () => {
  await server.stop();
  bench.remove();
});

const ofSize = (bytes: number) => ({ model: 'default', prompt: 'x'.repeat(bytes), max_tokens: 1 });

describe('a refused upload', () => {
  it('is answered with 413 time after time, however large', async () => {
    const client = server.client('sesame-open');
    for (const bytes of [LIMIT + 1, 2_000_000, 5_000_000, 5_000_000, 2_000_000, 20_000_000]) {
      await expect(client.completions.create(ofSize(bytes))).rejects.toMatchObject({
        status: 413,
        code: 'request_too_large',
      });
    }
    expect((await client.completions.create(ofSize(5))).choices).toHaveLength(1);
  });

  it('is answered with 401 and 404 alike', async () => {
    for (let round = 0; round < 5; round++) {
      await expect(server.client('wrong').completions.create(ofSize(5_000_000))).rejects.toThrow(
        OpenAI.AuthenticationError,
      );
      await expect(server.client('sesame-open').post('/nowhere', { body: ofSize(5_000_000) })).rejects.toThrow(
        OpenAI.NotFoundError,
      );
    }
  });

  it('is counted where no length was announced, and leaves the connection usable', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const send = async (bytes: number): Promise<number | undefined> => {
      const outgoing = request(`${server.url}/v1/completions`, {
        agent,
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: 'Bearer sesame-open' },
      });
      const body = Buffer.from(JSON.stringify(ofSize(bytes)));
      for (let at = 0; at < body.length; at += 16_384) outgoing.write(body.subarray(at, at + 16_384));
      outgoing.end();
      const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
      response.resume();
      await once(response, 'end');
      return response.statusCode;
    };
    expect([await send(5), await send(LIMIT + 50_000), await send(5), await send(LIMIT)]).toEqual([200, 413, 200, 413]);
    agent.destroy();
  });
});
