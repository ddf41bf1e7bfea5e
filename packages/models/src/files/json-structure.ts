import { KvasirError } from '@kvasir/domain';

const MAX_DEPTH = 64;

/**
 * Finds what JSON.parse lets pass or fails on badly: nesting so deep that it could exhaust the stack and, where a key must
 * not hide another, a key that occurs twice in one object. Assumes nothing about the text being valid JSON otherwise.
 * @throws KvasirError `file-corrupt`
 * Cost: one pass over the text.
 */
export function checkJsonStructure(text: string, path: string, options: { repeatedKeys: 'allow' | 'refuse' }): void {
  /** Keys seen in each open object; null for an open array. */
  const open: (Set<string> | null)[] = [];
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (letter === '{' || letter === '[') {
      open.push(letter === '{' ? new Set() : null);
      if (open.length > MAX_DEPTH)
        throw corrupt(path, at, `expected JSON nested at most ${MAX_DEPTH} deep, found more`);
    } else if (letter === '}' || letter === ']') {
      open.pop();
    } else if (letter === '"') {
      const end = endOfString(text, at);
      const keys = options.repeatedKeys === 'refuse' ? open.at(-1) : null;
      if (keys instanceof Set && isFollowedByColon(text, end)) {
        const key = unescape(text.slice(at + 1, end - 1));
        if (keys.has(key))
          throw corrupt(
            path,
            at,
            `expected every key once in an object, found ${JSON.stringify(key.slice(0, 120))} again`,
          );
        keys.add(key);
      }
      at = end - 1;
    }
  }
}

/** Index behind the closing quote, or the text's length when there is none. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '"') return at + 1;
  }
  return text.length;
}

/** One spelling for keys that JSON lets be written in several; a broken escape is left for JSON.parse to refuse. */
function unescape(key: string): string {
  return key.replace(/\\u([0-9a-fA-F]{4})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
}

function isFollowedByColon(text: string, from: number): boolean {
  let at = from;
  while (at < text.length && (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t')) at++;
  return text[at] === ':';
}

function corrupt(path: string, offset: number, message: string): KvasirError {
  return new KvasirError('file-corrupt', `${path}: JSON at character ${offset}: ${message}`, {
    facts: { path, offset },
  });
}
