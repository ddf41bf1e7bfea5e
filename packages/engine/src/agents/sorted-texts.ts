/** One of a list of siblings, ascending by `text` in UTF-16 units; texts may be equal. */
export interface Child {
  readonly text: string;
}

/** After what is equal: the order of equal texts is the order they came in. */
export function insertChild<Kind extends Child>(children: Kind[], child: Kind): void {
  children.splice(firstAfter(children, child.text), 0, child);
}

/** Every child whose text `rest` begins with, longest first. */
export function* prefixesOf<Kind extends Child>(children: readonly Kind[], rest: string): Generator<Kind> {
  let bound = rest;
  for (;;) {
    const index = firstAfter(children, bound) - 1;
    const below = children[index];
    if (below === undefined) return;
    if (!bound.startsWith(below.text)) {
      const common = commonText(below.text, bound);
      // Whatever else begins `rest` and sorts lower shares no more than this.
      if (common === 0) return;
      bound = bound.slice(0, common);
      continue;
    }
    let first = index;
    while (children[first]?.text === below.text) first -= 1;
    for (let equal = first + 1; equal <= index; equal += 1) yield children[equal] as Kind;
    if (below.text.length <= 1) return;
    bound = below.text.slice(0, -1);
  }
}

/** The siblings between which `rest` would stand: none shares a longer beginning with it than the better of them. */
export function nearest<Kind extends Child>(children: readonly Kind[], rest: string): Kind[] {
  const index = firstAfter(children, rest);
  return [children[index - 1], children[index]].filter((child) => child !== undefined);
}

const CHUNK = 1024;

/** Characters both begin with; equal stretches are compared at once. */
export function commonText(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  let length = 0;
  while (length + CHUNK <= shorter && a.slice(length, length + CHUNK) === b.slice(length, length + CHUNK))
    length += CHUNK;
  while (length < shorter && a.charCodeAt(length) === b.charCodeAt(length)) length += 1;
  return length;
}

/** Index of the first child whose text is greater than `text`. */
function firstAfter(children: readonly Child[], text: string): number {
  let low = 0;
  let high = children.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((children[middle] as Child).text <= text) low = middle + 1;
    else high = middle;
  }
  return low;
}
