import { Command } from 'commander';
import { VERSION } from '../version.ts';
import { addBenchCommand } from './bench.ts';
import { EXIT, reportFailure } from './command.ts';
import { addFetchCommand } from './fetch.ts';
import { addInspectCommand } from './inspect.ts';
import { addLogitsCommand } from './logits.ts';
import { addPerplexityCommand } from './perplexity.ts';
import { addRunCommand } from './run.ts';
import { addServeCommand } from './serve.ts';
import { addTokenizeCommand } from './tokenize.ts';

export function createProgram(): Command {
  const program = new Command('kvasir')
    .description('LLM inference with an OpenAI-compatible server')
    .version(VERSION)
    .exitOverride()
    .configureHelp({ showGlobalOptions: false });
  for (const add of [
    addServeCommand,
    addRunCommand,
    addInspectCommand,
    addTokenizeCommand,
    addLogitsCommand,
    addPerplexityCommand,
    addBenchCommand,
    addFetchCommand,
  ]) {
    add(program);
  }
  return program;
}

/** Runs one command line. @returns the exit code */
export async function runProgram(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync([...args], { from: 'user' });
    return EXIT.done;
  } catch (error) {
    return reportFailure(error, args.includes('--verbose'), (text) => void process.stderr.write(text));
  }
}
