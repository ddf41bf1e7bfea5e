import { z } from 'zod';

/** One setting: how it is checked, what it does, what it is when nobody sets it. */
export interface Setting<Output = unknown> {
  readonly schema: z.ZodType<Output>;
  readonly help: string;
  /** Shown in help after the flag: `--port <number>`. */
  readonly value: string;
  /** As a person reads it, where it is not simply the schema's default. */
  readonly defaultText?: string;
}

const integer = (minimum: number, maximum: number) => z.preprocess(toNumber, z.int().min(minimum).max(maximum));
const positive = (maximum = 2 ** 31 - 1) => integer(1, maximum);
const share = z.preprocess(toDecimal, z.number().gt(0).max(1));
const orAuto = (maximum = 2 ** 31 - 1) => integer(0, maximum);
const bytes = z.preprocess(
  toBytes,
  z
    .int()
    .min(0)
    .max(2 ** 48),
);
const TENANT = /^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$/;
const setting = <Output>(description: Setting<Output>): Setting<Output> => description;

/** Every setting by its name in the configuration file. Flags and variables are the same names in other cases. */
export const SETTINGS = {
  model: setting({
    schema: z.string().min(1).nullable().default(null),
    value: 'path | hf:org/repo:file',
    help: 'model to load: a .gguf file, a Hugging Face directory, or one to download',
    defaultText: 'the bundled model',
  }),
  host: setting({ schema: z.string().min(1).default('127.0.0.1'), value: 'address', help: 'address to listen on' }),
  port: setting({
    schema: integer(0, 65_535).default(8080),
    value: 'number',
    help: 'port to listen on; 0 picks a free one',
  }),
  apiKey: setting({
    schema: z.string().min(8).nullable().default(null),
    value: 'key',
    help: 'key clients must send as "Authorization: Bearer …"; better set by variable, which other users cannot see',
    defaultText: 'none: open to whoever can connect',
  }),
  apiKeys: setting({
    schema: z.preprocess(
      toTenantKeys,
      z
        .record(z.string(), z.array(z.string().min(8, 'expected keys of at least 8 characters')).min(1))
        .refine(
          (tenants) => Object.keys(tenants).every((tenant) => TENANT.test(tenant)),
          'expected tenants of 1 to 128 of A-Z a-z 0-9 . _ : @ -',
        )
        .refine(hasDistinctKeys, 'expected each key once, found one twice')
        .nullable()
        .default(null),
    ),
    value: 'tenant=key,…',
    help: 'keys of several tenants, whose agents and cached prompts are apart; in the file {"tenant": ["key"]}',
    defaultText: 'none: everybody is the tenant "default"',
  }),
  corsOrigin: setting({
    schema: z.string().min(1).nullable().default(null),
    value: 'origin',
    help: 'origin whose pages may call the server from a browser, or *',
    defaultText: 'none',
  }),
  maxBodyBytes: setting({
    schema: bytes.default(4 * 2 ** 20),
    value: 'bytes',
    help: 'largest request body',
    defaultText: '4MiB',
  }),
  maxImportBytes: setting({
    schema: bytes.default(16 * 2 ** 30),
    value: 'bytes',
    help: 'largest agent file taken by an import; it is never held in memory whole',
    defaultText: '16GiB',
  }),
  shutdownGraceMs: setting({
    schema: integer(0, 3_600_000).default(10_000),
    value: 'milliseconds',
    help: 'how long running generations may go on after SIGTERM before they are aborted',
  }),
  shutdownFlushMs: setting({
    schema: integer(0, 3_600_000).default(10_000),
    value: 'milliseconds',
    help: 'how long KV that is not saved yet may go on being saved after SIGTERM; tokens are saved already',
  }),
  logLevel: setting({
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
    value: 'level',
    help: 'least severe log line written to standard error: trace, debug, info, warn, error, fatal or silent',
  }),
  backend: setting({
    schema: z.enum(['auto', 'cpu', 'cuda', 'mlx']).default('auto'),
    value: 'name',
    help: 'where the model runs: auto, cpu, cuda or mlx; auto takes the best one installed',
  }),
  threads: setting({
    schema: orAuto(1024).default(0),
    value: 'number',
    help: 'threads that compute',
    defaultText: '0: one a core',
  }),
  instructionPath: setting({
    schema: z.string().min(1).default('auto'),
    value: 'name',
    help: 'instruction set of the CPU kernels: auto, scalar, avx2, avx512 or neon; all give the same bits',
  }),
  activations: setting({
    schema: z.enum(['quantized', 'float', 'fast']).default('quantized'),
    value: 'mode',
    help: "quantized: products on integers (CPU, block-quantized weights) or 16-bit operands (CUDA); float: float32 activations, slower, closest to the definition; fast (CUDA): prompts by a library's 16-bit products, whose bits depend on what is batched together",
  }),
  contextLength: setting({
    schema: orAuto().default(0),
    value: 'tokens',
    help: 'longest prompt plus output of one request',
    defaultText: '0: what the model was made for, as far as the pool holds it',
  }),
  kvDType: setting({
    schema: z.enum(['f16', 'bf16', 'f32', 'q8', 'q4']).default('f16'),
    value: 'dtype',
    help: 'format of the KV pool: f16, bf16, f32, q8 (half the bytes of f16) or q4 (a bit over a quarter)',
  }),
  poolTokens: setting({
    schema: orAuto().default(0),
    value: 'tokens',
    help: 'KV pool size in tokens over all requests; rounded up to blocks of 256',
    defaultText: '0: chosen from context and free memory; on a GPU by gpuMemoryUtilization',
  }),
  poolBytes: setting({
    schema: bytes.default(0),
    value: 'bytes',
    help: 'KV pool size in bytes (512MiB, 4GiB), instead of poolTokens',
    defaultText: '0: by poolTokens',
  }),
  gpuMemoryUtilization: setting({
    schema: share.default(0.9),
    value: 'share',
    help: "share of a GPU's memory the model may take in all, bounded by what is free; without poolTokens and poolBytes the KV pool takes what weights and workspace leave of it",
  }),
  maxBatchTokens: setting({ schema: positive(65_536).default(512), value: 'tokens', help: 'token budget of one step' }),
  maxBatchSequences: setting({
    schema: positive(1024).default(32),
    value: 'number',
    help: 'sequences that run at once',
  }),
  prefillChunkTokens: setting({
    schema: orAuto(65_536).default(0),
    value: 'tokens',
    help: 'most prompt tokens a step takes while other sequences decode; smaller keeps their gaps short',
    defaultText: '0: chosen by the engine',
  }),
  maxQueue: setting({
    schema: positive(1_000_000).default(256),
    value: 'number',
    help: 'requests that may wait before new ones get 429',
  }),
  cacheDir: setting({
    schema: z.string().min(1).nullable().default(null),
    value: 'path',
    help: 'folder for downloaded models and what is known of them',
    defaultText: '$XDG_CACHE_HOME/kvasir or ~/.cache/kvasir',
  }),
  memoryDir: setting({
    schema: z.string().min(1).nullable().default(null),
    value: 'path | none',
    help: 'folder where agents and their KV outlive the process; one server at a time; none keeps prefixes in memory and no agents',
    defaultText: '<cacheDir>/memory',
  }),
  coldBytes: setting({
    schema: bytes.default(16 * 2 ** 30),
    value: 'bytes',
    help: 'most KV kept in memoryDir; what was used longest ago goes first',
    defaultText: '16GiB',
  }),
  coldWriteBytes: setting({
    schema: bytes.default(64 * 2 ** 30),
    value: 'bytes',
    help: 'most KV written to memoryDir in a day; beyond it KV is computed again',
    defaultText: '64GiB',
  }),
  warmBytes: setting({
    schema: bytes.nullable().default(null),
    value: 'bytes',
    help: 'host memory for KV that has left the pool',
    defaultText: '0 on the CPU, whose pool is host memory; a quarter of the free memory elsewhere',
  }),
  restore: setting({
    schema: z.enum(['auto', 'always', 'never']).default('auto'),
    value: 'policy',
    help: 'KV that is known but not in the pool: auto loads what is faster loaded than computed, always loads, never computes',
  }),
  minBlocksPerAgent: setting({
    schema: integer(0, 1_000_000).default(0),
    value: 'blocks',
    help: 'first blocks of 256 tokens of every agent that leave the pool only when nothing else can',
  }),
  textIndexBytes: setting({
    schema: bytes.default(64 * 2 ** 20),
    value: 'bytes',
    help: 'memory for the texts of earlier turns, whose token ids are used again',
    defaultText: '64MiB',
  }),
  hfEndpoint: setting({
    schema: z
      .url({ protocol: /^https?$/ })
      .nullable()
      .default(null),
    value: 'url',
    help: 'Hugging Face Hub or a mirror of it; HF_ENDPOINT is read too',
    defaultText: 'https://huggingface.co',
  }),
  hfToken: setting({
    schema: z.string().min(1).nullable().default(null),
    value: 'token',
    help: 'access token, sent to hfEndpoint only; HF_TOKEN is read too',
    defaultText: 'none',
  }),
} as const;

export type SettingName = keyof typeof SETTINGS;
export const SETTING_NAMES = Object.keys(SETTINGS) as readonly SettingName[];

export type Settings = {
  readonly [Name in SettingName]: (typeof SETTINGS)[Name] extends Setting<infer Output> ? Output : never;
};

/** `kvDType` → `kv-dtype`: the flag's name without its dashes. */
export function toFlag(name: SettingName): string {
  return name.replace('DType', 'Dtype').replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `kvDType` → `KVASIR_KV_DTYPE`. */
export function toVariable(name: SettingName): string {
  return `KVASIR_${toFlag(name).replaceAll('-', '_').toUpperCase()}`;
}

export function defaultText(name: SettingName): string {
  const description: Setting = SETTINGS[name];
  return description.defaultText ?? String(description.schema.parse(undefined));
}

// Flags and variables arrive as text, the configuration file's values as numbers: both are taken.

function toNumber(value: unknown): unknown {
  return typeof value === 'string' && /^-?\d+$/.test(value) ? Number(value) : value;
}

function toDecimal(value: unknown): unknown {
  return typeof value === 'string' && /^\d*\.?\d+$/.test(value) ? Number(value) : value;
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
};

/** `tenant=key,tenant=key` from a flag or a variable, `{"tenant": "key" or ["key"]}` from the file. */
function toTenantKeys(value: unknown): unknown {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return Object.fromEntries(
      Object.entries(value).map(([tenant, keys]) => [tenant, typeof keys === 'string' ? [keys] : (keys as unknown)]),
    );
  }
  if (typeof value !== 'string') return value;
  const tenants = new Map<string, string[]>();
  for (const pair of value.split(',')) {
    const [tenant = '', ...key] = pair.split('=');
    tenants.set(tenant.trim(), [...(tenants.get(tenant.trim()) ?? []), key.join('=').trim()]);
  }
  return Object.fromEntries(tenants);
}

function hasDistinctKeys(tenants: Readonly<Record<string, readonly string[]>>): boolean {
  const keys = Object.values(tenants).flat();
  return new Set(keys).size === keys.length;
}

function toBytes(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  const match = /^(\d+(?:\.\d+)?)\s*([KMG]?I?B)?$/i.exec(value.trim());
  const unit = UNITS[(match?.[2] ?? '').toUpperCase()];
  return match === null || unit === undefined ? value : Math.round(Number(match[1]) * unit);
}
