// Native folders are fenced by what they may include: the binding sees no backend, a backend sees no Node.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { trackedFiles } from './tracked-files.mjs';

const TOOLKIT = { cuda: /^(cuda|cublas|cub\/|nccl|nvrtc)/, mlx: /^(mlx\/|Metal\/|Foundation\/)/ };
const FOLDERS = ['abi', 'common', 'cpu', 'cuda', 'mlx', 'napi'];
// What a folder may include of ours, besides itself. tests, bench and fuzz look inside everything but the binding.
const ALLOWED = {
  abi: [],
  common: ['abi'],
  cpu: ['abi', 'common'],
  cuda: ['abi', 'common'],
  mlx: ['abi', 'common'],
  napi: ['abi'],
};

export function checkNativeIncludes() {
  const problems = [];
  for (const file of trackedFiles('native').filter((name) => /\.(h|hpp|c|cpp|cu|cuh|mm)$/.test(name))) {
    const folder = file.split('/')[1];
    for (const [index, line] of readFileSync(file, 'utf8').split('\n').entries()) {
      const [, quote, name] = /^\s*#\s*include\s*([<"])([^>"]+)[>"]/.exec(line) ?? [];
      if (name === undefined) continue;
      const problem = judge(folder, file, quote, name);
      if (problem !== null) problems.push(`${file}:${index + 1}: ${problem}`);
    }
  }
  return problems;
}

function judge(folder, file, quote, name) {
  if (/^(napi|node_api|uv)\b/.test(name) && folder !== 'napi') return `<${name}>: only native/napi sees Node`;
  for (const [owner, pattern] of Object.entries(TOOLKIT)) {
    const isOwnTest = file.startsWith(`native/tests/${owner}_`) || file.startsWith(`native/bench/${owner}_`);
    if (quote === '<' && pattern.test(name) && folder !== owner && !isOwnTest)
      return `<${name}>: only native/${owner} sees its toolkit`;
  }
  if (folder === 'abi' && !/^std(int|def)\.h$/.test(name))
    return `<${name}>: the C waist includes only stdint.h and stddef.h`;
  if (quote !== '"' || !(folder in ALLOWED)) return null;
  const target = FOLDERS.find((candidate) => resolved(file, name).startsWith(`native/${candidate}/`));
  if (target === undefined || target === folder || ALLOWED[folder].includes(target)) return null;
  return `"${name}": native/${folder} may include ${['itself', ...ALLOWED[folder]].join(', ')}, not ${target}`;
}

function resolved(file, name) {
  if (name.startsWith('.')) return path.posix.join(path.posix.dirname(file), name);
  return FOLDERS.some((folder) => name.startsWith(`${folder}/`))
    ? `native/${name}`
    : path.posix.join(path.posix.dirname(file), name);
}
