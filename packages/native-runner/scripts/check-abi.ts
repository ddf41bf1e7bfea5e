// Compares src/addon.ts and src/waist-constants.ts with native/abi/kvasir_abi.h: constants by value, structs by field,
// functions by signature. `pnpm --filter @kvasir/native-runner run abi` prints what differs and exits with 1.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const packageDirectory = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

export interface AbiTexts {
  /** native/abi/kvasir_abi.h */
  readonly header: string;
  /** src/addon.ts */
  readonly face: string;
  /** src/waist-constants.ts */
  readonly constants: string;
}

/** Struct of the waist → interface of the face, and the fields that are the lengths of arrays or are set natively. */
const STRUCTS: Readonly<Record<string, { face: string; derived: readonly string[] }>> = {
  kv_backend_info: { face: 'AddonBackendInfo', derived: [] },
  kv_model: { face: 'AddonModel', derived: ['n_layers', 'n_ropes', 'n_tensors', 'n_files'] },
  kv_layer: { face: 'AddonLayer', derived: [] },
  kv_rope: { face: 'AddonRope', derived: [] },
  kv_tensor: { face: 'AddonTensor', derived: ['rank'] },
  kv_runner_options: { face: 'AddonRunnerOptions', derived: [] },
  kv_memory: { face: 'AddonMemory', derived: ['reserved'] },
  kv_memory_plan: { face: 'AddonMemoryPlan', derived: ['reserved'] },
  kv_sampler: { face: 'AddonSampler', derived: ['n_history', 'n_bias', 'n_stop'] },
  kv_batch: { face: 'AddonBatch', derived: ['n_tokens', 'n_sequences', 'n_groups', 'n_samplers'] },
  kv_step_result: { face: 'AddonStepResult', derived: ['n_sequences', 'n_logits_rows'] },
};

/** Structs that never reach JavaScript as objects. */
const NATIVE_ONLY = ['kv_error'];

export function readAbiTexts(): AbiTexts {
  const read = (file: string): string => readFileSync(path.join(packageDirectory, file), 'utf8');
  return {
    header: read('../../native/abi/kvasir_abi.h'),
    face: read('src/addon.ts'),
    constants: read('src/waist-constants.ts'),
  };
}

/** One line for each difference; empty when the face and the waist agree. */
export function checkAbi({ header, face, constants }: AbiTexts): string[] {
  const code = header.replaceAll(/\/\*[\s\S]*?\*\//g, ' ');
  return [...checkConstants(code, constants), ...checkStructs(code, face), ...checkFunctions(code, face)];
}

// ------------------------------------------------------------------------------------------------ comparisons

function checkConstants(code: string, constants: string): string[] {
  const inHeader = new Map<string, number>();
  for (const [, body = ''] of code.matchAll(/enum\s*\w*\s*\{([^}]*)\}/g)) {
    for (const [, name = '', value] of body.matchAll(/(KV_\w+)\s*=\s*(\d+)/g)) inHeader.set(name, Number(value));
  }
  const version = /#define\s+KV_ABI_VERSION\s+(\d+)/.exec(code)?.[1];
  if (version !== undefined) inHeader.set('KV_ABI_VERSION', Number(version));
  const inFace = new Map<string, number>();
  for (const [, name = '', value] of constants.matchAll(/(KV_\w+)(?::| =) (\d+)/g)) inFace.set(name, Number(value));
  const problems = inHeader.size < 60 ? [`the header: expected at least 60 constants, found ${inHeader.size}`] : [];
  for (const name of new Set([...inHeader.keys(), ...inFace.keys()])) {
    if (inHeader.get(name) !== inFace.get(name)) {
      problems.push(`${name}: the header has ${inHeader.get(name)}, waist-constants.ts has ${inFace.get(name)}`);
    }
  }
  return problems;
}

function checkStructs(code: string, face: string): string[] {
  const problems: string[] = [];
  const found = new Set<string>();
  for (const [, name = '', body = ''] of code.matchAll(/typedef struct (\w+) \{([^}]*)\}/g)) {
    found.add(name);
    const mapping = STRUCTS[name];
    if (mapping === undefined) {
      if (!NATIVE_ONLY.includes(name)) problems.push(`${name}: a struct the face does not know`);
      continue;
    }
    const expected = fieldNames(body).filter((field) => field !== 'size' && !mapping.derived.includes(field));
    problems.push(...compareFields(name, expected.map(toCamelCase), mapping.face, interfaceFields(face, mapping.face)));
  }
  const missing = Object.keys(STRUCTS).filter((name) => !found.has(name));
  return [...problems, ...missing.map((name) => `${name}: expected in the header, found nowhere`)];
}

function compareFields(struct: string, expected: string[], face: string, actual: string[]): string[] {
  const lacking = expected.filter((field) => !actual.includes(field));
  const extra = actual.filter((field) => !expected.includes(field));
  return [
    ...lacking.map((field) => `${struct}.${field}: in the header, not in ${face}`),
    ...extra.map((field) => `${face}.${field}: in the face, not in ${struct}`),
  ];
}

function checkFunctions(code: string, face: string): string[] {
  const comments = [...face.matchAll(/^ *\/\/ ?(.*)$/gm)].map(([, text = '']) => text).join(' ');
  const inFace = signatures(comments);
  const inHeader = signatures(code.replaceAll('KV_API', ''));
  if (inHeader.size < 10) return [`the header: expected at least 10 functions, found ${inHeader.size}`];
  const problems: string[] = [];
  for (const name of new Set([...inHeader.keys(), ...inFace.keys()])) {
    if (inHeader.get(name) !== inFace.get(name)) {
      problems.push(`${name}: the header has "${inHeader.get(name)}", addon.ts has "${inFace.get(name)}"`);
    }
  }
  return problems;
}

// ------------------------------------------------------------------------------------------------ parsing

function signatures(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [signature, name = ''] of text.matchAll(/(?:kv_status|void) (kv_\w+)\([^)]*\);/g)) {
    found.set(name, signature.replaceAll(/\s+/g, ' '));
  }
  return found;
}

/** Field names of a C struct's body: the last name of each declarator. */
function fieldNames(body: string): string[] {
  return body
    .split(';')
    .flatMap((declaration) => declaration.split(','))
    .map((declarator) => /(\w+)\s*(?:\[\w+\])?\s*$/.exec(declarator.trim())?.[1])
    .filter((name) => name !== undefined);
}

function interfaceFields(face: string, name: string): string[] {
  const body = new RegExp(`interface ${name} \\{([^}]*)\\}`).exec(face)?.[1] ?? '';
  return [...body.matchAll(/readonly (\w+)\??:/g)].map(([, field = '']) => field);
}

function toCamelCase(name: string): string {
  return name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

// ------------------------------------------------------------------------------------------------ command

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const problems = checkAbi(readAbiTexts());
  for (const problem of problems) console.error(problem);
  console.log(problems.length === 0 ? 'abi: the face and the waist agree' : `abi: ${problems.length} differences`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}
