// What every recorded result says of where it was measured, and how samples are summed up.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '../..');

/** Hardware, commit and command of this run. */
export function circumstances(experiment) {
  const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  const changed = git('status', '--porcelain', '--untracked-files=no', '--', ':!experiments/*/*.json', ':!*.svg');
  const script = path.relative(root, process.argv[1]);
  return {
    experiment,
    date: new Date().toISOString(),
    command: ['node', script, ...process.argv.slice(2).map((argument) => path.basename(argument))].join(' '),
    commit: git('rev-parse', '--short=12', 'HEAD') + (changed === '' ? '' : ' with changes'),
    hardware: `${os.cpus()[0]?.model}, ${os.cpus().length} cores, ${Math.round(os.totalmem() / 2 ** 30)} GiB`,
    loadAtStart: os.loadavg()[0],
    system: `${os.type()} ${os.release()}, Node ${process.version}`,
  };
}

export function record(folder, name, result) {
  writeFileSync(path.join(folder, name), `${JSON.stringify(result, null, 1)}\n`);
}

export function quantile(values, share) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

/** Median of an even number is the mean of the middle two. */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function summary(values, digits = 3) {
  const round = (value) => Number(value.toFixed(digits));
  return {
    median: round(median(values)),
    lowest: round(Math.min(...values)),
    highest: round(Math.max(...values)),
    samples: values.map(round),
  };
}

export function table(header, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map((_, index) => (index === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n');
}
