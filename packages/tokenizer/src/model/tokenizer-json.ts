import { KvasirError } from '@kvasir/domain';

// The parts of Hugging Face's tokenizer.json that are read here. Source: the serialization of the tokenizers library.

export type JsonObject = Readonly<Record<string, unknown>>;

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly stripLeft: boolean;
  readonly stripRight: boolean;
}

export interface BpeModel {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly merges: readonly (string | readonly [string, string])[];
  readonly unknownToken: string | null;
  readonly byteFallback: boolean;
  readonly ignoreMerges: boolean;
}

export interface TokenizerJson {
  readonly model: BpeModel;
  readonly addedTokens: readonly AddedToken[];
  readonly normalizer: JsonObject | null;
  readonly preTokenizer: JsonObject | null;
  readonly postProcessor: JsonObject | null;
  readonly decoder: JsonObject | null;
}

/** @throws KvasirError `file-corrupt`, or `unsupported-format` for models other than BPE */
export function parseTokenizerJson(root: JsonObject): TokenizerJson {
  const model = object(root.model, 'model') ?? corrupt('model', 'an object', root.model);
  return {
    model: parseBpe(model),
    addedTokens: list(root.added_tokens ?? [], 'added_tokens').map(parseAddedToken),
    normalizer: object(root.normalizer, 'normalizer'),
    preTokenizer: object(root.pre_tokenizer, 'pre_tokenizer'),
    postProcessor: object(root.post_processor, 'post_processor'),
    decoder: object(root.decoder, 'decoder'),
  };
}

function parseBpe(model: JsonObject): BpeModel {
  // Files written before the field existed have BPE's merges and no type.
  const type = model.type ?? (model.merges === undefined ? undefined : 'BPE');
  if (type !== 'BPE') unsupported('model.type', 'BPE', type);
  for (const field of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix'] as const) {
    const value = model[field] ?? null;
    if (value !== null && value !== '' && value !== 0) unsupported(`model.${field}`, 'none', value);
  }
  const vocabulary = new Map<string, number>();
  for (const [text, id] of Object.entries(object(model.vocab, 'model.vocab') ?? {})) {
    if (!isTokenId(id)) corrupt(`model.vocab ${JSON.stringify(text)}`, 'a token id', id);
    vocabulary.set(text, id);
  }
  return {
    vocabulary,
    merges: list(model.merges, 'model.merges').map(parseMerge),
    unknownToken: typeof model.unk_token === 'string' ? model.unk_token : null,
    byteFallback: model.byte_fallback === true,
    ignoreMerges: model.ignore_merges === true,
  };
}

function parseMerge(merge: unknown): string | readonly [string, string] {
  if (typeof merge === 'string') return merge;
  if (Array.isArray(merge) && merge.length === 2 && merge.every((part) => typeof part === 'string')) {
    return merge as unknown as readonly [string, string];
  }
  return corrupt('model.merges', 'strings or pairs of strings', merge);
}

function parseAddedToken(value: unknown): AddedToken {
  const token = object(value, 'added_tokens') ?? corrupt('added_tokens', 'objects', value);
  const { id, content } = token;
  if (!isTokenId(id) || typeof content !== 'string') corrupt('added_tokens', 'an id and a content', token);
  if (token.single_word === true) unsupported(`added_tokens ${content}`, 'single_word false', true);
  return {
    id,
    content,
    special: token.special === true,
    stripLeft: token.lstrip === true,
    stripRight: token.rstrip === true,
  };
}

/** Beyond 2^24 an id is a slip: the vocabulary is laid out by id. */
function isTokenId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 1 << 24;
}

export function object(value: unknown, where: string): JsonObject | null {
  if (value === undefined || value === null) return null;
  if (typeof value !== 'object' || Array.isArray(value)) return corrupt(where, 'an object', value);
  return value as JsonObject;
}

export function list(value: unknown, where: string): readonly unknown[] {
  return Array.isArray(value) ? value : corrupt(where, 'an array', value);
}

export function corrupt(where: string, expected: string, found: unknown): never {
  throw new KvasirError('file-corrupt', `tokenizer.json ${where}: expected ${expected}, found ${shown(found)}`);
}

export function unsupported(where: string, expected: string, found: unknown): never {
  throw new KvasirError('unsupported-format', `tokenizer.json ${where}: expected ${expected}, found ${shown(found)}`, {
    facts: { where, found: shown(found) },
  });
}

function shown(value: unknown): string {
  return value === undefined ? 'nothing' : JSON.stringify(value).slice(0, 80);
}
