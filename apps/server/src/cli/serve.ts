import { isKvasirError } from '@kvasir/domain';
import type { Command } from 'commander';
import { createApp } from '../app.ts';
import type { Config } from '../config.ts';
import type { Kvasir } from '../container.ts';
import type { ServedModel } from '../generation/served-model.ts';
import { listen, type Listener } from '../listen.ts';
import { ServerMetrics } from '../metrics.ts';
import { SETTING_NAMES } from '../settings.ts';
import { addSettings, readConfig, withKvasir } from './command.ts';

export function addServeCommand(program: Command): void {
  addSettings(program.command('serve').description('Serve a model over HTTP'), SETTING_NAMES).action(
    async (options) => {
      const config = readConfig(options as Record<string, unknown>, SETTING_NAMES, {});
      await withKvasir(config, async (kvasir, progress) => {
        const model = await kvasir.serve();
        progress.clear();
        const stopped = nextSignal();
        let isStopping = false;
        const metrics = new ServerMetrics(
          () => model.engine.stats(),
          () => model.memory(),
          () => model.countAgents(),
        );
        const app = createApp({ model, metrics, log: kvasir.log, options: config, isStopping: () => isStopping });
        const listener = await listen(app, config.host, config.port);
        model.engine.start();
        model.warmUp();
        announce(model, listener, config, kvasir);
        const signal = await stopped;
        isStopping = true;
        kvasir.log.info({ signal, graceMs: config.shutdownGraceMs }, 'shutting down');
        const clean = await listener.close(config.shutdownGraceMs, () => model.engine.dispose());
        const isSaved = await saveRest(model, config.shutdownFlushMs);
        kvasir.log.info({ clean, isSaved }, 'stopped');
      });
    },
  );
}

/** Tokens are saved with every turn; their KV follows behind, and what is not through by then is computed again. */
async function saveRest(model: ServedModel, milliseconds: number): Promise<boolean> {
  try {
    await model.flush(AbortSignal.timeout(milliseconds));
    return true;
  } catch (error) {
    if (isKvasirError(error) && error.code === 'aborted') return false;
    throw error;
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** The first SIGINT or SIGTERM; a second one ends the process as if nobody listened. */
function nextSignal(): Promise<string> {
  return new Promise((resolve) => {
    const listener = (signal: string) => {
      for (const name of SIGNALS) process.off(name, listener);
      resolve(signal);
    };
    for (const name of SIGNALS) process.on(name, listener);
  });
}

function announce(model: ServedModel, { url, address }: Listener, config: Config, { log }: Kvasir): void {
  const { facts } = model;
  const request =
    model.template === null
      ? { path: 'completions', body: { model: 'default', prompt: 'Once upon a time', max_tokens: 64 } }
      : { path: 'chat/completions', body: { model: 'default', messages: [{ role: 'user', content: 'Hello!' }] } };
  const key = config.apiKey === null ? '' : " -H 'authorization: Bearer YOUR_KEY'";
  process.stdout.write(
    [
      `Serving ${model.name} (${facts.architecture}, context ${facts.contextLength}) on ${facts.backend}: ${facts.device}`,
      `Listening on ${url}`,
      'Try:',
      `  curl ${url}/v1/${request.path}${key} -H 'content-type: application/json' -d '${JSON.stringify(request.body)}'`,
      '',
    ].join('\n'),
  );
  if (!isLoopback(address) && config.apiKey === null) {
    log.warn({ address }, 'expected an API key when others can connect, found none: set KVASIR_API_KEY');
  }
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
}
