import { KvasirError } from '@kvasir/domain';
import { alphabetToBytes, byteToCharacter } from './byte-alphabet.ts';
import { byteOfSpelling } from './gguf-model.ts';
import { readJson } from './json-file.ts';
import { readStages } from './json-stages.ts';
import { buildRankedMerges } from './ranked-merges.ts';
import { sharedInt32 } from './shared-memory.ts';
import { collectStopIds } from './stop-tokens.ts';
import { type JsonObject, type TokenizerJson, list, object, parseTokenizerJson } from './tokenizer-json.ts';
import { TOKEN_KINDS, type TokenizerModel } from './tokenizer-model.ts';
import { buildVocabulary } from './vocabulary.ts';

/** @throws KvasirError `file-not-found`, `file-unreadable`, `file-corrupt`, `unsupported-format` */
export async function huggingFaceModel(directory: string): Promise<TokenizerModel> {
  const root = await readJson(directory, 'tokenizer.json');
  if (root === null) {
    throw new KvasirError(
      'file-not-found',
      `tokenizer: expected tokenizer.json in ${directory}, found none; download it with the model's other files`,
      { facts: { directory } },
    );
  }
  const [tokenizerConfig, specialTokensMap, generationConfig] = await Promise.all([
    readJson(directory, 'tokenizer_config.json'),
    readJson(directory, 'special_tokens_map.json'),
    readJson(directory, 'generation_config.json'),
  ]);
  return modelFromJson(parseTokenizerJson(root), { ...specialTokensMap, ...tokenizerConfig }, generationConfig ?? {});
}

function modelFromJson(json: TokenizerJson, config: JsonObject, generationConfig: JsonObject): TokenizerModel {
  const { model, addedTokens } = json;
  const stages = readStages(json.normalizer, json.preTokenizer);
  const layout = layOutVocabulary(json, stages.isByteLevel);
  const { texts, kinds, byteIds } = layout;
  const idOf = (text: string | null): number | null => {
    if (text === null) return null;
    return addedTokens.find((token) => token.content === text)?.id ?? model.vocabulary.get(text) ?? null;
  };
  const bosId = idOf(tokenText(config.bos_token));
  const eosId = idOf(tokenText(config.eos_token));
  return {
    vocabulary: buildVocabulary(layout.tokens, kinds, !stages.isByteLevel),
    algorithm: {
      kind: 'ranked',
      symbols: stages.isByteLevel ? 'bytes' : 'characters',
      merges: buildRankedMerges(model.merges, model.vocabulary),
      wholePieceFirst: model.ignoreMerges,
    },
    normalizers: stages.normalizers,
    splits: stages.splits,
    special: addedTokens.map(({ id, content, special, stripLeft, stripRight }) => ({
      id,
      text: content,
      control: special,
      stripLeft,
      stripRight,
    })),
    byteIds,
    unknownId: idOf(model.unknownToken) ?? -1,
    ...frame(json.postProcessor, config, bosId, eosId),
    bosId,
    eosId,
    stopIds: collectStopIds([eosId, ...tokenIds(generationConfig.eos_token_id)], texts, kinds),
    hasSpacePrefix: dropsFirstSpace(json.decoder),
  };
}

/** Ids between the tokens of a vocabulary stand for nothing. */
const EMPTY: Uint8Array = new Uint8Array(0);

function layOutVocabulary({ model, addedTokens }: TokenizerJson, isByteLevel: boolean) {
  const entries = [...model.vocabulary, ...addedTokens.map(({ content, id }): [string, number] => [content, id])];
  const size = entries.reduce((most, [, id]) => Math.max(most, id + 1), 0);
  const texts = Array.from({ length: size }, () => '');
  const tokens: Uint8Array[] = Array.from({ length: size }, () => EMPTY);
  const kinds = new Uint8Array(size).fill(TOKEN_KINDS.unused);
  const byteIds = sharedInt32(256).fill(-1);
  for (const [text, id] of model.vocabulary) {
    const byte = model.byteFallback ? byteOfSpelling(text) : null;
    texts[id] = text;
    kinds[id] = byte === null ? TOKEN_KINDS.normal : TOKEN_KINDS.byte;
    if (byte !== null) byteIds[byte] = id;
    tokens[id] = byte === null ? ((isByteLevel ? alphabetToBytes(text) : null) ?? utf8(text)) : Uint8Array.of(byte);
  }
  if (isByteLevel) {
    for (let byte = 0; byte < 256; byte += 1) byteIds[byte] = model.vocabulary.get(byteToCharacter(byte)) ?? -1;
  }
  for (const { id, content, special } of addedTokens) {
    texts[id] = content;
    kinds[id] = special ? TOKEN_KINDS.control : TOKEN_KINDS.userDefined;
    tokens[id] = utf8(content);
  }
  return { texts, tokens, kinds, byteIds };
}

/** Ids around a text: the post-processor's template, unless the configuration says otherwise in so many words. */
function frame(postProcessor: JsonObject | null, config: JsonObject, bosId: number | null, eosId: number | null) {
  const template = findTemplate(postProcessor);
  const prefixIds: number[] = [];
  const suffixIds: number[] = [];
  let isAfter = false;
  for (const item of template === null ? [] : list(template.single, 'post_processor.single')) {
    const piece = object(item, 'post_processor.single') ?? {};
    const special = object(piece.SpecialToken, 'post_processor.single');
    if (special === null) {
      isAfter = true;
      continue;
    }
    const known = object(object(template?.special_tokens, 'post_processor')?.[String(special.id)], 'post_processor');
    (isAfter ? suffixIds : prefixIds).push(...tokenIds(known?.ids));
  }
  return {
    prefixIds: asked(config.add_bos_token, bosId, prefixIds),
    suffixIds: asked(config.add_eos_token, eosId, suffixIds),
  };
}

function asked(flag: unknown, id: number | null, fromTemplate: readonly number[]): readonly number[] {
  if (typeof flag !== 'boolean' || id === null) return fromTemplate;
  return flag ? [id] : [];
}

function findTemplate(postProcessor: JsonObject | null): JsonObject | null {
  if (postProcessor === null) return null;
  switch (postProcessor.type) {
    case 'ByteLevel':
      return null;
    case 'TemplateProcessing':
      return postProcessor;
    case 'Sequence':
      return (
        list(postProcessor.processors, 'post_processor')
          .map((item) => findTemplate(object(item, 'post_processor')))
          .find((template) => template !== null) ?? null
      );
    default:
      throw new KvasirError(
        'unsupported-format',
        `tokenizer.json post_processor.type: expected TemplateProcessing, ByteLevel or Sequence, found ${String(postProcessor.type)}`,
      );
  }
}

/** Decoders that take away the space put before a text: Strip at the start, or Metaspace's own. */
function dropsFirstSpace(decoder: JsonObject | null): boolean {
  switch (decoder?.type) {
    case 'Sequence':
      return list(decoder.decoders, 'decoder').some((item) => dropsFirstSpace(object(item, 'decoder')));
    case 'Strip':
      return decoder.content === ' ' && decoder.start === 1;
    case 'Metaspace':
      return decoder.prepend_scheme !== 'never' && decoder.add_prefix_space !== false;
    default:
      return false;
  }
}

function tokenText(value: unknown): string | null {
  if (typeof value === 'string') return value;
  const content = typeof value === 'object' && value !== null && 'content' in value ? value.content : null;
  return typeof content === 'string' ? content : null;
}

function tokenIds(value: unknown): number[] {
  const values: readonly unknown[] = Array.isArray(value) ? value : [value];
  return values.filter((id): id is number => typeof id === 'number' && Number.isInteger(id) && id >= 0);
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
