import type { AgentManifest } from '@kvasir/domain';
import { commonPrefix } from './agent-cut.ts';
import type { TextRecord } from './text-index.ts';

/** A turn from the start of its text: what `TextIndex.add` takes. */
export type TurnText = TextRecord;

/** What an agent's manifest tells of its text. */
export interface AgentText {
  /** One a turn whose text follows the one before; the index takes them as a path. */
  readonly records: readonly TextRecord[];
  /** Of the last record's end, from the agent's start. */
  readonly text: string;
  readonly tokens: number;
}

/** A turn's text as JSON. `isWhole`: from the agent's start; otherwise it goes on after the last whole turn before. */
interface StoredText {
  readonly v: 1;
  readonly isWhole: boolean;
  readonly text: string;
  readonly promptLength: number;
  readonly tokens: number;
  readonly answerLengths: readonly number[];
}

const NOTHING: AgentText = { records: [], text: '', tokens: 0 };

/**
 * The text an agent's turns were run with. A turn that was cut, or whose JSON says nothing, ends what can be told; a later
 * one that brings its whole text begins anew. Nothing of it is to be believed before it was compared with the tokens: a
 * manifest may be imported. Cost: O(text).
 */
export function readTurnTexts(manifest: Pick<AgentManifest, 'turns' | 'tokenIds'>): AgentText {
  let known = NOTHING;
  let isBroken = false;
  for (const { segments, endTokens, isCut } of manifest.turns) {
    if (isCut) continue;
    const stored = parse(segments);
    const before = stored?.isWhole === true ? NOTHING : known;
    const isUsable =
      stored !== null &&
      (stored.isWhole || !isBroken) &&
      stored.tokens <= endTokens &&
      stored.tokens - before.tokens >= stored.answerLengths.length &&
      stored.promptLength <= stored.text.length;
    if (!isUsable) {
      known = NOTHING;
      isBroken = true;
      continue;
    }
    isBroken = false;
    const { text, promptLength, answerLengths, tokens } = stored;
    const tokenIds = manifest.tokenIds.slice(before.tokens, tokens);
    known = {
      records: [...before.records, { text, tokenIds, promptLength, answerLengths }],
      text: before.text + text,
      tokens,
    };
  }
  return known;
}

/**
 * The text of the turns that stay whole when the agent's tokens become `tokenIds`: what `writeTurnText` goes on from.
 * @param known what `readTurnTexts` tells of the manifest, where it was read already
 */
export function textBefore(
  manifest: Pick<AgentManifest, 'turns' | 'tokenIds'>,
  tokenIds: Int32Array,
  known: AgentText | null = null,
): AgentText {
  const common = commonPrefix(manifest.tokenIds, tokenIds);
  if (known !== null && common === manifest.tokenIds.length) return known;
  return readTurnTexts({ ...manifest, turns: manifest.turns.filter(({ endTokens }) => endTokens <= common) });
}

/**
 * JSON of a turn for `AgentTurn.segments`.
 * @param before what `readTurnTexts` tells of the turns that stay before it
 * @param turn null where the turn's text is not known: it was given as ids
 */
export function writeTurnText(before: AgentText, turn: TurnText | null): string {
  if (turn === null) return '{"v":1}';
  const { text, tokenIds, promptLength, answerLengths } = turn;
  const goesOn =
    before.records.length > 0 &&
    promptLength >= before.text.length &&
    tokenIds.length - answerLengths.length >= before.tokens &&
    text.startsWith(before.text);
  const start = goesOn ? before.text.length : 0;
  const stored: StoredText = {
    v: 1,
    isWhole: !goesOn,
    text: text.slice(start),
    promptLength: promptLength - start,
    tokens: tokenIds.length,
    answerLengths,
  };
  return JSON.stringify(stored);
}

function parse(segments: string): StoredText | null {
  let value: unknown;
  try {
    value = JSON.parse(segments);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  if (typeof value !== 'object' || value === null) return null;
  const { v, isWhole, text, promptLength, tokens, answerLengths } = value as Record<string, unknown>;
  const isStored =
    v === 1 &&
    typeof isWhole === 'boolean' &&
    typeof text === 'string' &&
    isCount(promptLength) &&
    isCount(tokens) &&
    Array.isArray(answerLengths) &&
    answerLengths.every((length) => length === -1 || isCount(length));
  return isStored ? (value as StoredText) : null;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
