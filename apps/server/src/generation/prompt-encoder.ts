import { setImmediate } from 'node:timers/promises';
import type { AgentManifest, CancellationSignal, PromptSegment } from '@kvasir/domain';
import {
  partsOf,
  readTurnTexts,
  unspellText,
  type AgentText,
  type TextIndex,
  type TextMark,
  type TextRecord,
} from '@kvasir/engine';
import type { TextTokenizer } from '@kvasir/tokenizer';
import { spellAnswer, type AnswerText } from './answer-text.ts';
import { fragmentsFrom, spellFragments } from './prompt-fragments.ts';

/** A prompt's ids, and what is known of the text they spell. */
export interface EncodedPrompt {
  readonly ids: Int32Array;
  /** As the text index spells it; null where the prompt came as ids. */
  readonly text: string | null;
  /** Places that text and ids share, ascending, from the start to the end. */
  readonly marks: readonly TextMark[];
  /** An earlier answer the prompt does not repeat, spelled, and the ids up to where it leaves it. */
  readonly departed: { readonly answer: string; readonly tokens: number } | null;
  /** The agent's text before this turn; null without an agent, or where it was not looked at. */
  readonly before: AgentText | null;
}

export interface EncodeRequest {
  readonly tenant: string;
  readonly bosEos: 'missing' | 'always';
  /** Whose ids win where several turns spell the same. */
  readonly agent: AgentManifest | null;
  readonly signal: CancellationSignal;
}

const START: TextMark = { characters: 0, tokens: 0 };
const SLICE_TOKENS = 4096;

/** Prompts to ids, with the ids earlier turns were run with: text that only went through the model is not encoded again. */
export class PromptEncoder {
  readonly #tokenizer: TextTokenizer;
  readonly #texts: TextIndex;

  constructor(tokenizer: TextTokenizer, texts: TextIndex) {
    this.#tokenizer = tokenizer;
    this.#texts = texts;
  }

  /** @throws KvasirError `deadline-exceeded`, `request-too-large`, `aborted` */
  async encode(segments: readonly PromptSegment[], request: EncodeRequest): Promise<EncodedPrompt> {
    const { tenant, bosEos, agent, signal } = request;
    const fragments = await this.#tokenizer.splitSegments(segments, { bosEos, signal });
    // A token after the end of every text stands where an answer would begin: no text goes on from there.
    if (this.#tokenizer.info.addEos) {
      return ofIds(join(await this.#tokenizer.encodeFragments(fragments, signal)));
    }
    const spelled = spellFragments(fragments);
    const before = agent === null ? null : await this.#recall(agent);
    const known = this.#texts.find(tenant, spelled.text, agent?.tokenIds);
    const { rest, starts } = fragmentsFrom(fragments, spelled, known.characters);
    const parts = await this.#tokenizer.encodeFragments(rest, signal);
    const marks = [START, ...known.marks];
    let tokens = known.tokenIds.length;
    for (const [index, part] of parts.entries()) {
      marks.push({ characters: starts[index] as number, tokens });
      tokens += part.length;
    }
    marks.push({ characters: spelled.text.length, tokens });
    const { departed } = known;
    return { ids: join([known.tokenIds, ...parts]), text: spelled.text, marks, departed, before };
  }

  /** A prompt that came as ids. */
  encodeIds(ids: readonly number[]): EncodedPrompt {
    return ofIds(Int32Array.from(ids));
  }

  /** What a finished turn spelled, from the start of its prompt. @returns null for a prompt without text */
  toTurn(prompt: EncodedPrompt, answer: AnswerText, answerIds: ArrayLike<number>): TextRecord | null {
    if (prompt.text === null) return null;
    const known = Array.from(answer.lengths, (_, index) => answerIds[index] as number);
    return {
      text: prompt.text + answer.text,
      tokenIds: join([prompt.ids, known]),
      promptLength: prompt.text.length,
      answerLengths: answer.lengths,
    };
  }

  remember(tenant: string, turn: TextRecord): void {
    this.#texts.add(tenant, turn);
  }

  /** Drops an agent's text where nothing else goes on from it. */
  forget(agent: AgentManifest): void {
    this.#texts.forget(agent.tenant, readTurnTexts(agent).records);
  }

  /** Takes the agent's text into the index where it is not there: after a start, a fork, an import, or a long time. */
  async #recall(agent: AgentManifest): Promise<AgentText> {
    const text = readTurnTexts(agent);
    const { records } = text;
    const isKnown = records.length === 0 || this.#texts.has(agent.tenant, records);
    if (!isKnown && (await this.#isTrue(records))) this.#texts.addPath(agent.tenant, records);
    return text;
  }

  /**
   * Whether each record's ids spell its text. A manifest may come from a file that anybody wrote: text that claims ids it
   * does not spell would put special tokens, or anything, into prompts that begin the same.
   */
  async #isTrue(records: readonly TextRecord[]): Promise<boolean> {
    let carry = '';
    for (const { text, tokenIds, promptLength, answerLengths } of records) {
      const numPrompt = tokenIds.length - answerLengths.length;
      const answerIds = tokenIds.subarray(numPrompt);
      if (!(await this.#spells(carry + text.slice(0, promptLength), tokenIds.subarray(0, numPrompt)))) return false;
      const answer = spellAnswer(this.#tokenizer, answerIds, null, true);
      const given = text.slice(promptLength);
      if (!given.startsWith(answer.text) || answer.lengths.join() !== answerLengths.join()) return false;
      carry = given.slice(answer.text.length);
    }
    return true;
  }

  async #spells(text: string, ids: Int32Array): Promise<boolean> {
    const parts = partsOf(text);
    let decoder = this.#tokenizer.createDetokenizer({ continues: true });
    let run = '';
    let hasRun = false;
    const endRun = (): boolean => {
      if (!hasRun) return true;
      run += decoder.flush();
      const part = parts.next().value;
      const expected = part !== undefined && 'text' in part ? unspellText(part.text) : null;
      // Vocabularies that mark a word's start put a space before a text that its author did not write.
      const isSpelled = expected !== null && (run === expected || run === ` ${expected}`);
      [run, hasRun, decoder] = ['', false, this.#tokenizer.createDetokenizer({ continues: true })];
      return isSpelled;
    };
    for (const [index, id] of ids.entries()) {
      if (index % SLICE_TOKENS === SLICE_TOKENS - 1) await setImmediate();
      if (!this.#tokenizer.isSpecialId(id)) {
        run += decoder.push(id);
        hasRun = true;
        continue;
      }
      if (!endRun()) return false;
      const part = parts.next().value;
      if (part === undefined || !('id' in part) || part.id !== id) return false;
    }
    return endRun() && parts.next().done === true;
  }
}

function ofIds(ids: Int32Array): EncodedPrompt {
  return { ids, text: null, marks: [START], departed: null, before: null };
}

function join(parts: readonly ArrayLike<number>[]): Int32Array {
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let length = 0;
  for (const part of parts) {
    ids.set(part, length);
    length += part.length;
  }
  return ids;
}
