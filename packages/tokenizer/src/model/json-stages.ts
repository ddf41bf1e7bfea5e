import { translatePattern } from './oniguruma-pattern.ts';
import { preTokenizer } from './pre-tokenizers.ts';
import { type JsonObject, list, object, unsupported } from './tokenizer-json.ts';
import type { Normalizer, SplitStage } from './tokenizer-model.ts';

const ESCAPED_SPACE = '\u2581';

/** What a tokenizer.json does to text before merging. */
export interface JsonStages {
  readonly normalizers: readonly Normalizer[];
  readonly splits: readonly SplitStage[];
  /** Pieces are spelled in GPT-2's byte alphabet. */
  readonly isByteLevel: boolean;
}

/** @throws KvasirError `unsupported-format` naming the stage that has no equal here */
export function readStages(normalizer: JsonObject | null, preTokenizerJson: JsonObject | null): JsonStages {
  const stages = new StageReader();
  stages.addNormalizer(normalizer);
  stages.addPreTokenizer(preTokenizerJson);
  return stages;
}

class StageReader implements JsonStages {
  readonly normalizers: Normalizer[] = [];
  readonly splits: SplitStage[] = [];
  isByteLevel = false;

  addNormalizer(json: JsonObject | null): void {
    if (json === null) return;
    switch (json.type) {
      case 'Sequence':
        for (const item of list(json.normalizers, 'normalizer')) this.addNormalizer(object(item, 'normalizer'));
        return;
      case 'NFC':
      case 'NFD':
      case 'NFKC':
      case 'NFKD':
        this.normalizers.push({ kind: 'unicode', form: json.type });
        return;
      case 'Prepend':
        this.normalizers.push({ kind: 'prepend', text: text(json.prepend, 'normalizer.prepend') });
        return;
      case 'Replace':
        this.normalizers.push({
          kind: 'replace',
          pattern: pattern(json.pattern, 'normalizer.pattern'),
          replacement: text(json.content, 'normalizer.content'),
        });
        return;
      case 'ByteLevel':
        this.isByteLevel = true;
        return;
      default:
        unsupported('normalizer.type', 'Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace or ByteLevel', json.type);
    }
  }

  addPreTokenizer(json: JsonObject | null): void {
    if (json === null) return;
    switch (json.type) {
      case 'Sequence':
        for (const item of list(json.pretokenizers, 'pre_tokenizer'))
          this.addPreTokenizer(object(item, 'pre_tokenizer'));
        return;
      case 'Split':
        this.#addSplit(json);
        return;
      case 'Digits':
        this.splits.push({ pattern: json.individual_digits === true ? /\p{Nd}/gu : /\p{Nd}+/gu, behavior: 'isolate' });
        return;
      case 'ByteLevel':
        this.isByteLevel = true;
        if (json.add_prefix_space === true) this.#prefix(' ', false);
        if (json.use_regex !== false) this.splits.push(...preTokenizer('gpt-2').splits);
        return;
      case 'Metaspace':
        this.#addMetaspace(json);
        return;
      default:
        unsupported('pre_tokenizer.type', 'Sequence, Split, Digits, ByteLevel or Metaspace', json.type);
    }
  }

  #addSplit(json: JsonObject): void {
    const stage = pattern(json.pattern, 'pre_tokenizer.pattern');
    const inverted = json.invert === true;
    switch (json.behavior) {
      case 'Isolated':
        this.splits.push({ pattern: stage, behavior: 'isolate' });
        return;
      case 'Removed':
        if (inverted) unsupported('pre_tokenizer Split', 'invert with Isolated', 'Removed');
        this.splits.push({ pattern: stage, behavior: 'remove' });
        return;
      case 'MergedWithPrevious':
      case 'MergedWithNext': {
        if (inverted) unsupported('pre_tokenizer Split', 'invert with Isolated', json.behavior);
        this.splits.push({ pattern: mergedPattern(stage, json.behavior), behavior: 'isolate' });
        return;
      }
      default:
        unsupported('pre_tokenizer.behavior', 'Isolated, Removed or MergedWith…', json.behavior);
    }
  }

  #addMetaspace(json: JsonObject): void {
    const replacement = text(json.replacement ?? ESCAPED_SPACE, 'pre_tokenizer.replacement');
    const scheme = json.prepend_scheme ?? (json.add_prefix_space === false ? 'never' : 'always');
    this.normalizers.push({ kind: 'replace', pattern: / /gu, replacement });
    if (scheme !== 'never') this.#prefix(replacement, scheme === 'first');
    if (json.split !== false) {
      const character = escapeForPattern(replacement);
      this.splits.push({
        pattern: new RegExp(`${character}[^${character}]*|[^${character}]+`, 'gu'),
        behavior: 'isolate',
      });
    }
  }

  /** A prefix belongs to a stretch of text: after a split it would belong to a piece, which nothing here does. */
  #prefix(prefix: string, onlyFirst: boolean): void {
    if (this.splits.length > 0) unsupported('pre_tokenizer', 'a prefix before any split', 'one after a split');
    this.normalizers.push({ kind: 'prepend-missing', text: prefix, onlyFirst });
  }
}

/** A match joined with the text on one side up to the neighbouring match. */
function mergedPattern(split: RegExp, behavior: 'MergedWithPrevious' | 'MergedWithNext'): RegExp {
  const match = `(?:${split.source})`;
  const other = `(?:(?!${match})[^])`;
  return behavior === 'MergedWithNext'
    ? new RegExp(`${match}${other}*|${other}+`, 'gu')
    : new RegExp(`${other}*${match}|${other}+`, 'gu');
}

function pattern(value: unknown, where: string): RegExp {
  const json = object(value, where) ?? {};
  if (typeof json.String === 'string') return new RegExp(escapeForPattern(json.String), 'gu');
  return translatePattern(text(json.Regex, where));
}

function text(value: unknown, where: string): string {
  return typeof value === 'string' ? value : unsupported(where, 'a string', value);
}

function escapeForPattern(literal: string): string {
  return literal.replace(/[\\^$.*+?()[\]{}|/]/gu, String.raw`\$&`);
}
