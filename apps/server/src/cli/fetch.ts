import type { Command } from 'commander';
import { parseHubReference } from '@kvasir/models';
import type { SettingName } from '../settings.ts';
import { resolveModel } from '../loading/resolve-model.ts';
import { addSettings, readConfig, UsageError } from './command.ts';
import { createProgress } from './progress.ts';

const SETTINGS: readonly SettingName[] = ['cacheDir', 'hfEndpoint', 'hfToken'];

export function addFetchCommand(program: Command): void {
  const command = program
    .command('fetch <model>')
    .description('Download a model (hf:org/repo:file or hf:org/repo:file@revision) and print where it lies');
  addSettings(command, SETTINGS).action(async (model: string, options: Record<string, unknown>) => {
    if (parseHubReference(model) === null) throw new UsageError(`model: expected hf:org/repo:file, found ${model}`);
    const config = readConfig(options, SETTINGS);
    const progress = createProgress(config.isTerminal);
    const interrupted = new AbortController();
    const interrupt = () => interrupted.abort();
    process.once('SIGINT', interrupt);
    try {
      const path = await resolveModel(
        { ...config, model },
        ({ file, bytesDone, bytesTotal }) => progress.show(file, bytesDone, bytesTotal, 'bytes'),
        interrupted.signal,
      );
      progress.clear();
      process.stdout.write(`${path}\n`);
    } finally {
      progress.clear();
      process.off('SIGINT', interrupt);
    }
  });
}
