import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { addSettings, FILE_SETTINGS, readConfig, withKvasir } from './command.ts';
import { readText } from './input.ts';

interface TokenizeOptions {
  readonly textFile: string;
  readonly special?: true;
  readonly bos?: true;
  readonly out?: string;
}

export function addTokenizeCommand(program: Command): void {
  const command = program
    .command('tokenize')
    .description('Turn a text file into a JSON array of token ids; works on vocabulary-only files')
    .requiredOption('--text-file <path>', 'UTF-8 text; - reads standard input')
    .option('--special', 'special tokens written in the text become their ids')
    .option('--bos', 'add what the model asks for around a text (BOS, EOS)')
    .option('--out <path>', 'write there instead of standard output');
  addSettings(command, FILE_SETTINGS).action(async (options: TokenizeOptions & Record<string, unknown>) => {
    await withKvasir(readConfig(options, FILE_SETTINGS), async (kvasir) => {
      const text = await readText(options.textFile);
      const tokenizer = await kvasir.tokenizer();
      const ids = await tokenizer.encode(text, { special: options.special === true, addBosEos: options.bos === true });
      const json = `${JSON.stringify([...ids])}\n`;
      if (options.out === undefined) process.stdout.write(json);
      else await writeFile(options.out, json);
    });
  });
}
