import { commonPrefix } from './agent-cut.ts';
import { type Child, commonText, insertChild, nearest, prefixesOf } from './sorted-texts.ts';
import { isMarkAt, isWordCut, lastMarkEnd, partsOf, wholeMarks } from './spelled-text.ts';

/**
 * One turn: what it added to the text before it, and the ids that text was run with. Text is spelled as in
 * `spelled-text.ts`: special tokens are marks no text can spell, so a text that only looks like one never matches it.
 */
export interface TextRecord {
  readonly text: string;
  /** (n) the prompt's ids, then the answer's that were kept. */
  readonly tokenIds: Int32Array;
  /** Leading characters of `text` that were the prompt's; what follows is the answer. */
  readonly promptLength: number;
  /** (m) characters each of the answer's m kept tokens spells; -1: it ends inside a character, which counts to the next. */
  readonly answerLengths: readonly number[];
}

/** A place that text and tokens share. */
export interface TextMark {
  readonly characters: number;
  readonly tokens: number;
}

export interface TextMatch {
  /** Ids of the text's first `characters`. */
  readonly tokenIds: Int32Array;
  readonly characters: number;
  /** Where the prompts and the answers of records ended on the way, ascending. */
  readonly marks: readonly TextMark[];
  /** An answer known after the same prompt that the text does not repeat, and the tokens up to where it leaves it. */
  readonly departed: { readonly answer: string; readonly tokens: number } | null;
}

export interface TextIndexUsage {
  readonly records: number;
  readonly bytes: number;
}

interface Node extends Child {
  readonly parent: Node | null;
  readonly record: TextRecord;
  /** Of everything up to its end. */
  readonly characters: number;
  readonly tokens: number;
  /** Where its last token ends: a stop string may have cut that token's successor, whose text counts all the same. */
  readonly covered: number;
  readonly children: Node[];
}

interface Tenant {
  readonly root: Node;
  /** Least recently used first; a record is always younger than those that begin with it are. */
  readonly order: Set<Node>;
  bytes: number;
}

/** What a record costs beside its text and ids: objects, array headers, its places in lists. */
const RECORD_BYTES = 320;

/**
 * Which ids a text was run with, for texts that begin as an earlier one did: a tree of turns a tenant. It is a cache: what
 * it has forgotten is encoded anew. Bounded in bytes; the tenant that holds most gives up its least recently used first.
 */
export class TextIndex {
  readonly #maxBytes: number;
  readonly #tenants = new Map<string, Tenant>();
  #bytes = 0;
  #records = 0;

  constructor(options: { readonly maxBytes: number }) {
    this.#maxBytes = options.maxBytes;
  }

  get usage(): TextIndexUsage {
    return { records: this.#records, bytes: this.#bytes };
  }

  /**
   * Ids for as much of `text` as is known. A record counts whole; where `text` leaves its answer at a special token or ends
   * there, up to the last token that lies before; else up to its prompt's last special token that `text` has too. Text is
   * never cut inside a word of the caller's.
   * @param preferred of records that spell the same the one with these ids wins
   */
  find(tenant: string, text: string, preferred?: Int32Array): TextMatch {
    const found = this.#tenants.get(tenant);
    if (found === undefined) return NOTHING;
    let best = found.root;
    const visit = (node: Node): void => {
      for (const child of prefixesOf(node.children, text.slice(node.characters))) {
        const isCut = isWordCut(text, child.characters);
        if (!isCut && isBetter(child, best, preferred)) best = child;
        visit(child);
      }
    };
    visit(found.root);
    this.#touch(found, best);
    return this.#match(best, text);
  }

  /** Whether the last record of the path is there, reached by the others. */
  has(tenant: string, path: readonly TextRecord[]): boolean {
    let node = this.#tenants.get(tenant)?.root;
    for (const record of path) node = node?.children.find((child) => isSame(child.record, record));
    return node !== undefined;
  }

  /** Takes records that follow one another from the start of a text. */
  addPath(tenant: string, path: readonly TextRecord[]): void {
    const into = this.#tenant(tenant);
    let node = into.root;
    for (const record of path) node = this.#extend(into, node, record);
    this.#touch(into, node);
    this.#shrink();
  }

  /** Takes a turn given from the start of its text; what is known of its prompt is not stored again. */
  add(tenant: string, turn: TextRecord): void {
    const into = this.#tenant(tenant);
    let parent = into.root;
    const visit = (node: Node): void => {
      for (const child of prefixesOf(node.children, turn.text.slice(node.characters, turn.promptLength))) {
        const ids = child.record.tokenIds;
        const isRun = commonPrefix(ids, turn.tokenIds.subarray(node.tokens)) === ids.length;
        if (!isRun) continue;
        if (child.characters > parent.characters) parent = child;
        visit(child);
      }
    };
    visit(into.root);
    const record: TextRecord = {
      text: turn.text.slice(parent.characters),
      tokenIds: turn.tokenIds.slice(parent.tokens),
      promptLength: turn.promptLength - parent.characters,
      answerLengths: turn.answerLengths,
    };
    this.#touch(into, this.#extend(into, parent, record));
    this.#shrink();
  }

  /** Drops the path's last record, whatever goes on from it, and what only it needed of those before. */
  forget(tenant: string, path: readonly TextRecord[]): void {
    const from = this.#tenants.get(tenant);
    if (from === undefined) return;
    let node: Node | undefined = from.root;
    for (const record of path) node = node?.children.find((child) => isSame(child.record, record));
    if (node === undefined || node === from.root) return;
    this.#dropAfter(from, node);
    for (let last = node; last.parent !== null && last.children.length === 0; last = last.parent)
      this.#drop(from, last);
  }

  #dropAfter(tenant: Tenant, node: Node): void {
    for (let child = node.children.at(-1); child !== undefined; child = node.children.at(-1)) {
      this.#dropAfter(tenant, child);
      this.#drop(tenant, child);
    }
  }

  #match(node: Node, text: string): TextMatch {
    const rest = text.slice(node.characters);
    const left = closest(node.children, rest);
    const isOver = left === null || left.common === rest.length || left.common === left.child.text.length;
    const departed = isOver ? null : departureOf(node, left.child, left.common);
    const part = left === null ? null : partBefore(left.child, rest, left.common);
    const path = pathOf(node);
    const marks = path.flatMap(marksOf);
    const parts = path.map(({ record }) => record.tokenIds);
    if (left !== null && part !== null) {
      parts.push(part.tokenIds);
      if (part.characters > left.child.record.promptLength) marks.push(promptEndOf(left.child));
    }
    return {
      tokenIds: join(parts),
      characters: part === null ? node.covered : node.characters + part.characters,
      marks,
      departed,
    };
  }

  #extend(tenant: Tenant, parent: Node, record: TextRecord): Node {
    if (record.text === '') return parent;
    const known = parent.children.find((child) => isSame(child.record, record));
    if (known !== undefined) return known;
    // A slice would keep the whole prompt it was cut from alive; what JSON gives back is a text of its own.
    const text = JSON.parse(JSON.stringify(record.text)) as string;
    const node: Node = {
      parent,
      text,
      record: { ...record, text, tokenIds: record.tokenIds.slice(), answerLengths: [...record.answerLengths] },
      characters: parent.characters + text.length,
      tokens: parent.tokens + record.tokenIds.length,
      covered: parent.characters + tokensBefore(record, text.length).characters,
      children: [],
    };
    insertChild(parent.children, node);
    tenant.order.add(node);
    tenant.bytes += bytesOf(node);
    this.#bytes += bytesOf(node);
    this.#records += 1;
    return node;
  }

  /** From the end to the start, so that a record is older than what it begins with. */
  #touch(tenant: Tenant, last: Node): void {
    for (let node: Node | null = last; node !== null && node !== tenant.root; node = node.parent) {
      tenant.order.delete(node);
      tenant.order.add(node);
    }
  }

  #shrink(): void {
    while (this.#bytes > this.#maxBytes) {
      let largest: Tenant | null = null;
      for (const tenant of this.#tenants.values()) if (tenant.bytes > (largest?.bytes ?? 0)) largest = tenant;
      const [oldest] = largest?.order ?? [];
      if (largest === null || oldest === undefined) return;
      this.#drop(largest, oldest);
    }
  }

  #drop(tenant: Tenant, node: Node): void {
    const siblings = (node.parent as Node).children;
    siblings.splice(siblings.indexOf(node), 1);
    tenant.order.delete(node);
    tenant.bytes -= bytesOf(node);
    this.#bytes -= bytesOf(node);
    this.#records -= 1;
  }

  #tenant(name: string): Tenant {
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) {
      const record: TextRecord = { text: '', tokenIds: new Int32Array(), promptLength: 0, answerLengths: [] };
      tenant = {
        root: { parent: null, text: '', record, characters: 0, tokens: 0, covered: 0, children: [] },
        order: new Set(),
        bytes: 0,
      };
      this.#tenants.set(name, tenant);
    }
    return tenant;
  }
}

const NOTHING: TextMatch = { tokenIds: new Int32Array(), characters: 0, marks: [], departed: null };

/** The child that shares most with `rest`, whose own start none of them is, unless that would cut a word. */
function closest(children: readonly Node[], rest: string): { readonly child: Node; readonly common: number } | null {
  let best: { child: Node; common: number } | null = null;
  for (const child of nearest(children, rest)) {
    const common = commonText(child.text, rest);
    if (common > (best?.common ?? -1)) best = { child, common };
  }
  return best;
}

interface RecordPart {
  readonly tokenIds: Int32Array;
  readonly characters: number;
}

/** What of a record stands before where `rest` leaves it. */
function partBefore({ record }: Node, rest: string, common: number): RecordPart | null {
  const end = wholeMarks(rest, common);
  if (end < record.promptLength || !isMarkAt(rest, end)) return promptPart(record, end);
  const { tokens, characters } = tokensBefore(record, end);
  return { tokenIds: record.tokenIds.subarray(0, tokens), characters };
}

/** The prompt up to the last special token in its first `end` characters: those tokens stand in text and ids in one order. */
function promptPart({ text, tokenIds, promptLength }: TextRecord, end: number): RecordPart | null {
  const characters = lastMarkEnd(text.slice(0, Math.min(end, promptLength)));
  let tokens = 0;
  for (const part of partsOf(text.slice(0, characters))) {
    if ('id' in part) tokens = tokenIds.indexOf(part.id, tokens) + 1;
    // An id that is not there: a manifest from elsewhere, whose text says what its ids do not.
    if ('id' in part && tokens === 0) return null;
  }
  return tokens === 0 ? null : { tokenIds: tokenIds.subarray(0, tokens), characters };
}

/** Tokens that lie wholly in the record's first `end` characters, of its prompt all. */
function tokensBefore(record: TextRecord, end: number): { readonly tokens: number; readonly characters: number } {
  const numPrompt = record.tokenIds.length - record.answerLengths.length;
  let [tokens, characters, reached] = [numPrompt, record.promptLength, record.promptLength];
  for (const [index, length] of record.answerLengths.entries()) {
    if (length < 0) continue;
    reached += length;
    if (reached > end) break;
    [tokens, characters] = [numPrompt + index + 1, reached];
  }
  return { tokens, characters };
}

/** Leaving a prompt before its answer is no departure, except in what the template writes right before an answer. */
function departureOf(parent: Node, { record }: Node, common: number): TextMatch['departed'] {
  const { promptLength, text } = record;
  if (common < promptLength && common < lastMarkEnd(text.slice(0, promptLength))) return null;
  const tokens = common < promptLength ? 0 : tokensBefore(record, common).tokens;
  return { answer: text.slice(promptLength), tokens: parent.tokens + tokens };
}

function isBetter(node: Node, best: Node, preferred: Int32Array | undefined): boolean {
  if (node.characters !== best.characters || preferred === undefined) return node.characters > best.characters;
  return commonWith(node, preferred) > commonWith(best, preferred);
}

function commonWith(node: Node, tokenIds: Int32Array): number {
  return commonPrefix(join(pathOf(node).map(({ record }) => record.tokenIds)), tokenIds);
}

function pathOf(node: Node): Node[] {
  const path: Node[] = [];
  for (let at = node; at.parent !== null; at = at.parent) path.push(at);
  return path.reverse();
}

function marksOf(node: Node): TextMark[] {
  return [promptEndOf(node), { characters: node.covered, tokens: node.tokens }];
}

function promptEndOf({ parent, record, tokens }: Node): TextMark {
  const { promptLength, answerLengths } = record;
  return { characters: (parent?.characters ?? 0) + promptLength, tokens: tokens - answerLengths.length };
}

function isSame(a: TextRecord, b: TextRecord): boolean {
  const { length } = a.tokenIds;
  return a.text === b.text && length === b.tokenIds.length && commonPrefix(a.tokenIds, b.tokenIds) === length;
}

function bytesOf({ record }: Node): number {
  return record.text.length * 2 + record.tokenIds.length * 4 + record.answerLengths.length * 8 + RECORD_BYTES;
}

function join(parts: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let length = 0;
  for (const part of parts) {
    all.set(part, length);
    length += part.length;
  }
  return all;
}
