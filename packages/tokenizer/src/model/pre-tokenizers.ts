import { KvasirError } from '@kvasir/domain';
import type { SplitStage } from './tokenizer-model.ts';

/** How text is cut before merging, by the name GGUF gives it in `tokenizer.ggml.pre`. */
export interface PreTokenizer {
  readonly splits: readonly SplitStage[];
  readonly wholePieceFirst: boolean;
  /** What `tokenizer.ggml.add_bos_token` means where it is absent. */
  readonly addBosDefault: boolean;
}

// Sources: the Split patterns of the tokenizer.json published with each model family, written for JavaScript: white
// space is Unicode's White_Space property (JavaScript's \s differs by U+0085 and U+FEFF), (?i:…) is spelled out.
const SPACE = String.raw`\p{White_Space}`;
const NOT_SPACE = String.raw`\P{White_Space}`;
const CONTRACTION = String.raw`'(?:[sSdDmMtT\u017F]|[lL][lL]|[vV][eE]|[rR][eE])`;
const PUNCTUATION = String.raw` ?[^\p{White_Space}\p{L}\p{N}]+`;
const SPACES = String.raw`${SPACE}*[\r\n]+|${SPACE}+(?!${NOT_SPACE})|${SPACE}+`;
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
const CASED_WORD = (suffix: string): string =>
  String.raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+${suffix}|[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*${suffix}`;

const GPT2 = String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+|${PUNCTUATION}|${SPACE}+(?!${NOT_SPACE})|${SPACE}+`;
const WORDS = (digits: string): string =>
  String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}|${PUNCTUATION}[\r\n]*|${SPACES}`;
const O200K = String.raw`${CASED_WORD(`(?:${CONTRACTION})?`)}|\p{N}{1,3}|${PUNCTUATION}[\r\n/]*|${SPACES}`;
const TEKKEN = String.raw`${CASED_WORD('')}|\p{N}|${PUNCTUATION}[\r\n/]*|${SPACES}`;
const QWEN35 = String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\p{White_Space}\p{L}\p{M}\p{N}]+[\r\n]*|${SPACES}`;
const DEEPSEEK_V3 = String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_\x60{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|${SPACES}`;
const CJK = '[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+';

interface Family {
  readonly names: readonly string[];
  readonly patterns: readonly string[];
  readonly wholePieceFirst?: boolean;
  readonly addBosDefault?: boolean;
}

const FAMILIES: readonly Family[] = [
  {
    names: ['gpt-2', 'phi-2', 'mpt', 'olmo', 'gigachat', 'a.x-4.0', 'mellum', 'exaone4', 'trillion', 'granite-docling'],
    patterns: [GPT2],
  },
  {
    names: ['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2'],
    patterns: [WORDS(String.raw`\p{N}{1,3}`)],
    wholePieceFirst: true,
    addBosDefault: true,
  },
  { names: ['glm4', 'glm5'], patterns: [WORDS(String.raw`\p{N}{1,3}`)], wholePieceFirst: true },
  { names: ['chatglm-bpe', 'dbrx', 'smaug-bpe'], patterns: [WORDS(String.raw`\p{N}{1,3}`)] },
  {
    names: ['qwen2', 'deepseek-r1-qwen', 'kormo', 'megrez', 'stablelm2', 'hunyuan', 'solar-open', 'grok-2'],
    patterns: [WORDS(String.raw`\p{N}`)],
  },
  { names: ['qwen35'], patterns: [QWEN35] },
  {
    names: ['gpt-4o', 'o200k', 'o200k_base', 'o200k_harmony', 'llama4', 'kanana2', 'talkie', 'minimax-m2'],
    patterns: [O200K],
    wholePieceFirst: true,
  },
  { names: ['tekken'], patterns: [TEKKEN], wholePieceFirst: true, addBosDefault: true },
  {
    names: ['smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b', 'mellum2'],
    patterns: [String.raw`\p{N}`, GPT2],
  },
  { names: ['deepseek-v3', 'hunyuan-dense', 'joyai-llm'], patterns: [String.raw`\p{N}{1,3}`, CJK, DEEPSEEK_V3] },
];

const BY_NAME: ReadonlyMap<string, Family> = new Map(
  FAMILIES.flatMap((family) => family.names.map((name): [string, Family] => [name, family])),
);

export const PRE_TOKENIZER_NAMES: readonly string[] = [...BY_NAME.keys()].sort();

/** @throws KvasirError `unsupported-format` naming the supported ones; nothing is guessed */
export function preTokenizer(name: string | null): PreTokenizer {
  const family = name === null ? undefined : BY_NAME.get(name);
  if (family === undefined) {
    throw new KvasirError(
      'unsupported-format',
      `tokenizer.ggml.pre: expected one of ${PRE_TOKENIZER_NAMES.join(', ')}, found ${name ?? 'none'}; ` +
        'convert the model again with a converter that knows its pre-tokenizer',
      { facts: { found: name, supported: PRE_TOKENIZER_NAMES } },
    );
  }
  return {
    splits: family.patterns.map((pattern) => ({ pattern: new RegExp(pattern, 'gu'), behavior: 'isolate' })),
    wholePieceFirst: family.wholePieceFirst ?? false,
    addBosDefault: family.addBosDefault ?? false,
  };
}
