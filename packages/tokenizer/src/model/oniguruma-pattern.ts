import { KvasirError } from '@kvasir/domain';

// White space and digits are Unicode properties in Oniguruma, where JavaScript has sets of its own.
const CLASSES: Readonly<Record<string, string>> = {
  s: String.raw`\p{White_Space}`,
  S: String.raw`\P{White_Space}`,
  d: String.raw`\p{Nd}`,
  D: String.raw`\P{Nd}`,
};
const WORD = String.raw`\p{L}\p{M}\p{N}\p{Pc}`;
/** Letters that fold together beside their own two cases. Source: Unicode CaseFolding.txt, status C. */
const EXTRA_FOLDS: Readonly<Record<string, string>> = { s: '\u017f', k: '\u212a' };

/**
 * A regular expression of tokenizer.json, written for Oniguruma, as a JavaScript one with the flags `gu`. What has no
 * equal meaning is refused rather than approximated.
 * @throws KvasirError `unsupported-format` naming the construct
 */
export function translatePattern(pattern: string): RegExp {
  return new RegExp(new Translator(pattern).translate(), 'gu');
}

class Translator {
  readonly #pattern: string;
  #at = 0;
  #output = '';
  /** Where in the output the atom begins that a quantifier would apply to. */
  #atomStart = 0;
  #possessiveGroups = 0;
  readonly #groups: { readonly foldsCase: boolean; readonly outputStart: number }[] = [];

  constructor(pattern: string) {
    this.#pattern = pattern;
  }

  translate(): string {
    while (this.#at < this.#pattern.length) this.#step();
    return this.#output;
  }

  get #foldsCase(): boolean {
    return this.#groups.at(-1)?.foldsCase ?? false;
  }

  #step(): void {
    const character = this.#take();
    switch (character) {
      case '(':
        return this.#openGroup();
      case ')': {
        this.#output += ')';
        this.#atomStart = this.#groups.pop()?.outputStart ?? 0;
        return;
      }
      case '[':
        return this.#atom(this.#characterClass());
      case '\\':
        return this.#atom(this.#escape(false));
      case '?':
      case '*':
      case '+':
        return this.#quantifier(character);
      case '{':
        return this.#countedQuantifier();
      case '^':
        return this.#atom(String.raw`(?:^|(?<=\n))`);
      case '$':
        return this.#atom(String.raw`(?=\n|$)`);
      case '|':
        this.#output += '|';
        return;
      default:
        return this.#atom(this.#literal(character));
    }
  }

  #take(): string {
    const character = String.fromCodePoint(this.#pattern.codePointAt(this.#at) as number);
    this.#at += character.length;
    return character;
  }

  #atom(text: string): void {
    this.#atomStart = this.#output.length;
    this.#output += text;
  }

  #openGroup(): void {
    const rest = this.#pattern.slice(this.#at);
    const opening = /^\?(?:i?:|=|!|<=|<!)/.exec(rest)?.[0];
    if (opening === undefined && rest.startsWith('?')) this.#refuse(`(${rest.slice(0, 3)}`);
    const foldsCase = opening === '?i:' || this.#foldsCase;
    this.#groups.push({ foldsCase, outputStart: this.#output.length });
    this.#output += `(${opening === '?i:' ? '?:' : (opening ?? '?:')}`;
    this.#at += opening?.length ?? 0;
  }

  #quantifier(quantifier: string): void {
    const next = this.#pattern.charAt(this.#at);
    if (next === '?') {
      this.#at += 1;
      this.#output += `${quantifier}?`;
    } else if (next === '+') {
      // Possessive: what a lookahead matched is not given back.
      this.#at += 1;
      const atom = this.#output.slice(this.#atomStart);
      const name = `possessive${this.#possessiveGroups}`;
      this.#possessiveGroups += 1;
      this.#output = `${this.#output.slice(0, this.#atomStart)}(?=(?<${name}>${atom}${quantifier}))\\k<${name}>`;
    } else {
      this.#output += quantifier;
    }
  }

  #countedQuantifier(): void {
    const counts = /^\d+(?:,\d*)?\}/.exec(this.#pattern.slice(this.#at))?.[0];
    if (counts === undefined) return this.#atom('\\{');
    this.#at += counts.length;
    this.#output += `{${counts}`;
  }

  #characterClass(): string {
    let text = '[';
    if (this.#pattern.charAt(this.#at) === '^') {
      this.#at += 1;
      text += '^';
    }
    for (;;) {
      if (this.#at >= this.#pattern.length) this.#refuse('an unclosed [');
      const character = this.#take();
      if (character === ']') return `${text}]`;
      if (character === '[') this.#refuse('a class inside a class');
      if (character === '&' && this.#pattern.charAt(this.#at) === '&') this.#refuse('&& in a class');
      text += character === '\\' ? this.#escape(true) : this.#classMember(character);
    }
  }

  /** One character or one range of a class; where case folds, both cases of it. */
  #classMember(first: string): string {
    const last = /^-([^\]\\])/u.exec(this.#pattern.slice(this.#at))?.[1];
    if (last !== undefined) this.#at += 1 + last.length;
    const member = (from: string, to: string | undefined): string =>
      this.#quote(from, true) + (to === undefined ? '' : `-${this.#quote(to, true)}`);
    if (!this.#foldsCase || !/\p{L}/u.test(first)) return member(first, last);
    const lower = member(first.toLowerCase(), last?.toLowerCase());
    const fold = last === undefined ? (EXTRA_FOLDS[first.toLowerCase()] ?? '') : '';
    return `${lower}${member(first.toUpperCase(), last?.toUpperCase())}${fold}`;
  }

  #escape(inClass: boolean): string {
    const character = this.#take();
    const simple = CLASSES[character];
    if (simple !== undefined) return simple;
    if (character === 'w') return inClass ? WORD : `[${WORD}]`;
    if (character === 'W' && !inClass) return `[^${WORD}]`;
    if (character === 'p' || character === 'P') {
      const name = /^\{\^?[A-Za-z_=]+\}/.exec(this.#pattern.slice(this.#at))?.[0];
      if (name === undefined || name.startsWith('{^')) this.#refuse(`\\${character}`);
      this.#at += name.length;
      return `\\${character}${propertyName(name)}`;
    }
    if ('rntfv'.includes(character)) return `\\${character}`;
    if (character === 'u' || character === 'x') {
      const code = /^(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2,4}))/.exec(this.#pattern.slice(this.#at));
      if (code === null) this.#refuse(`\\${character}`);
      this.#at += code[0].length;
      return `\\u{${code[1] ?? code[2]}}`;
    }
    if (/[A-Za-z0-9]/.test(character)) this.#refuse(`\\${character}`);
    return this.#quote(character, inClass);
  }

  #literal(character: string): string {
    if (!this.#foldsCase || !/\p{L}/u.test(character)) return this.#quote(character, false);
    const lower = character.toLowerCase();
    return `[${lower}${lower.toUpperCase()}${EXTRA_FOLDS[lower] ?? ''}]`;
  }

  /** In the `u` mode of JavaScript only syntax characters may be escaped. */
  #quote(character: string, inClass: boolean): string {
    return /[\^$\\.*+?()[\]{}|/]/.test(character) || (inClass && character === '-') ? `\\${character}` : character;
  }

  #refuse(construct: string): never {
    throw new KvasirError(
      'unsupported-format',
      `tokenizer.json pattern: expected constructs with an equal in JavaScript, found ${construct} in ${this.#pattern}`,
      { facts: { construct, pattern: this.#pattern } },
    );
  }
}

/** Scripts stand alone in Oniguruma (`\p{Han}`); categories and binary properties are spelled alike. */
function propertyName(braced: string): string {
  const name = braced.slice(1, -1);
  return /^(?:Han|Hiragana|Katakana|Hangul|Latin|Cyrillic|Greek|Arabic|Thai|Hebrew)$/.test(name)
    ? `{Script=${name}}`
    : braced;
}
