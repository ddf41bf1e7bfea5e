import type { PromptSegment } from '@kvasir/domain';
import { HazardFinder, type Hazard, type Json, mapStrings } from './untrusted-text.ts';

/** First private-use character, and how many there are in the plane every string can hold one unit each. */
const PRIVATE_USE = { first: 0xe000, count: 0x1900 } as const;
const PRIVATE_USE_UNITS = /[\ue000-\uf8ff]/g;
/** Strings looked at one by one where looking at all of them at once does not work out. */
const MAX_SINGLE_STRINGS = 16;

type Variables = Readonly<Record<string, Json>>;

/**
 * Renders a prompt and tells which of its characters a caller could have made into special tokens.
 *
 * The prompt itself is one plain render, so its text is exact. Where a special token stands in it and a caller's string
 * holds that token, or an end of it, a second render has those characters replaced by private-use ones. If putting them
 * back gives the first render again, their places are the places of untrusted characters: those become segments of their
 * own that are not special. Templates that act on the replaced characters (split at them, compare them) are tried string
 * by string; what then still differs is not special from its first difference to its last.
 *
 * Limit: a template that cuts a caller's string in its middle, elsewhere than at white space, and puts text of its own
 * beside the cut could complete a token whose other part the string held there.
 *
 * @param untrusted what the caller sent; everything else a template writes is trusted
 */
export function segmentPrompt(
  render: (untrusted: Variables) => string,
  untrusted: Variables,
  specials: readonly string[],
): PromptSegment[] {
  const prompt = render(untrusted);
  const written = new HazardFinder(specials).whole(prompt);
  const present = [...new Set(written.map(({ start, end }) => prompt.slice(start, end)))];
  if (present.length === 0) return cut(prompt, new Uint8Array(prompt.length));
  const substitution = new Substitution(present, untrusted, prompt);
  const marks = new Uint8Array(prompt.length);
  if (substitution.hazardous.length > 0 && !tryRender(render, substitution, prompt, substitution.hazardous, marks)) {
    for (const index of substitution.hazardous.slice(0, MAX_SINGLE_STRINGS)) {
      if (!tryRender(render, substitution, prompt, [index], marks))
        markDifference(render, substitution, prompt, index, marks);
    }
    for (const index of substitution.hazardous.slice(MAX_SINGLE_STRINGS))
      markTokens(substitution, prompt, index, marks);
  }
  return cut(prompt, marks);
}

/** Replaces hazardous characters of the untrusted strings, each by a private-use character of its own, and back. */
class Substitution {
  /** Numbers of the strings, in `mapStrings` order, that hold a hazard. */
  readonly hazardous: readonly number[];
  readonly #untrusted: Variables;
  readonly #hazards: ReadonlyMap<number, { readonly whole: readonly Hazard[]; readonly all: readonly Hazard[] }>;
  readonly #wholeTexts: ReadonlyMap<number, readonly string[]>;
  readonly #standIns = new Map<string, string>();
  readonly #originals = new Map<string, string>();

  constructor(present: readonly string[], untrusted: Variables, prompt: string) {
    this.#untrusted = untrusted;
    const finder = new HazardFinder(present);
    const hazards = new Map<number, { whole: readonly Hazard[]; all: readonly Hazard[] }>();
    const wholeTexts = new Map<number, readonly string[]>();
    const used = new Set<number>();
    addPrivateUse(used, prompt);
    let index = 0;
    mapStrings(untrusted, (text, isKind) => {
      const whole = finder.whole(text);
      const all = isKind ? whole : [...whole, ...finder.edges(text)];
      if (all.length > 0) hazards.set(index, { whole, all });
      wholeTexts.set(
        index,
        whole.map(({ start, end }) => text.slice(start, end)),
      );
      addPrivateUse(used, text);
      index += 1;
      return text;
    });
    this.#hazards = hazards;
    this.#wholeTexts = wholeTexts;
    this.hazardous = [...hazards.keys()];
    this.#chooseStandIns(new Set(present.join('')), used);
  }

  /** The untrusted variables with the hazards of the given strings replaced. */
  apply(indexes: readonly number[]): Variables {
    const chosen = new Set(indexes);
    let index = 0;
    return mapStrings(this.#untrusted, (text) => {
      const hazards = chosen.has(index) ? (this.#hazards.get(index)?.all ?? []) : [];
      index += 1;
      return hazards.reduce((changed, { start, end }) => this.#replace(changed, text, start, end), text);
    }) as Variables;
  }

  restore(text: string): string {
    let restored = '';
    for (const unit of text.split('')) restored += this.#originals.get(unit) ?? unit;
    return restored;
  }

  isStandIn(unit: string): boolean {
    return this.#originals.has(unit);
  }

  /** Special tokens one string holds whole. */
  tokensIn(index: number): readonly string[] {
    return this.#wholeTexts.get(index) ?? [];
  }

  #replace(changed: string, original: string, start: number, end: number): string {
    const replaced = original
      .slice(start, end)
      .split('')
      .map((unit) => this.#standIns.get(unit) ?? unit);
    return changed.slice(0, start) + replaced.join('') + changed.slice(end);
  }

  #chooseStandIns(units: ReadonlySet<string>, used: ReadonlySet<number>): void {
    let code: number = PRIVATE_USE.first;
    for (const unit of [...units].flatMap((character) => character.split(''))) {
      while (used.has(code) && code < PRIVATE_USE.first + PRIVATE_USE.count) code += 1;
      const standIn = String.fromCharCode(code);
      code += 1;
      this.#standIns.set(unit, standIn);
      this.#originals.set(standIn, unit);
    }
  }
}

function addPrivateUse(used: Set<number>, text: string): void {
  for (const [unit] of text.matchAll(PRIVATE_USE_UNITS)) used.add(unit.charCodeAt(0));
}

/** Marks what the given strings put into the prompt; false where the template acted on the replaced characters. */
function tryRender(
  render: (untrusted: Variables) => string,
  substitution: Substitution,
  prompt: string,
  indexes: readonly number[],
  marks: Uint8Array,
): boolean {
  const replaced = renderOrNull(render, substitution.apply(indexes));
  if (replaced === null || substitution.restore(replaced) !== prompt) return false;
  for (let position = 0; position < replaced.length; position += 1) {
    if (substitution.isStandIn(replaced.charAt(position))) marks[position] = 1;
  }
  return true;
}

function markDifference(
  render: (untrusted: Variables) => string,
  substitution: Substitution,
  prompt: string,
  index: number,
  marks: Uint8Array,
): void {
  // Ends of tokens alone are no reason to distrust what lies between them.
  if (substitution.tokensIn(index).length === 0) return;
  const replaced = renderOrNull(render, substitution.apply([index]));
  if (replaced === null) {
    markTokens(substitution, prompt, index, marks);
    return;
  }
  const shorter = Math.min(prompt.length, replaced.length);
  let start = 0;
  while (start < shorter && prompt[start] === replaced[start]) start += 1;
  let end = 0;
  while (end < shorter - start && prompt.at(-1 - end) === replaced.at(-1 - end)) end += 1;
  marks.fill(1, start, prompt.length - end);
}

/** The last resort: the tokens one string holds are special nowhere in the prompt. */
function markTokens(substitution: Substitution, prompt: string, index: number, marks: Uint8Array): void {
  for (const { start, end } of new HazardFinder(substitution.tokensIn(index)).whole(prompt)) marks.fill(1, start, end);
}

/** Null where the template refuses the replaced text, which it did not do with the real one. */
function renderOrNull(render: (untrusted: Variables) => string, untrusted: Variables): string | null {
  try {
    return render(untrusted);
  } catch (error) {
    if (error instanceof Error) return null;
    throw error;
  }
}

/** Runs of marked and unmarked characters. */
function cut(prompt: string, marks: Uint8Array): PromptSegment[] {
  const segments: PromptSegment[] = [];
  for (let start = 0; start < prompt.length; ) {
    const mark = marks[start];
    const change = marks.indexOf(mark === 0 ? 1 : 0, start);
    const end = change < 0 ? prompt.length : change;
    segments.push({ text: prompt.slice(start, end), special: mark === 0 });
    start = end;
  }
  return segments;
}
