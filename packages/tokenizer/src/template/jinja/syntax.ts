import { parse, tokenize } from '@huggingface/jinja';
import type { Node } from './ast.ts';
import { TemplateError } from './values.ts';

type Token = ReturnType<typeof tokenize>[number];

/** Filter names the parser is given for tests with arguments; no template can write them. */
export const TEST_FILTER = ' is ';
export const NEGATED_TEST_FILTER = ' is not ';

const CLOSERS: ReadonlyMap<string, string> = new Map([
  ['OpenParen', 'CloseParen'],
  ['OpenSquareBracket', 'CloseSquareBracket'],
  ['OpenCurlyBracket', 'CloseCurlyBracket'],
]);
/** Words that go on with an expression after a test instead of being its argument. */
const CONTINUATIONS = new Set(['and', 'or', 'else', 'if', 'is', 'in', 'not', 'recursive']);

/**
 * Parses a template with the library. Its parser knows no test with an argument (`is divisibleby(3)`, `is in list`), so
 * those are handed to it as filters, which bind alike; the interpreter turns them back.
 * @throws TemplateError with the parser's message
 */
export function parseTemplate(source: string): Node {
  let program: unknown;
  try {
    const tokens = tokenize(source, { lstrip_blocks: true, trim_blocks: true });
    program = parse(rewriteTests(tokens));
  } catch (error) {
    // The parser reads past the end of an unfinished block, which shows as a TypeError.
    const problem = error instanceof TypeError ? 'it ends inside a block or an expression' : String(error);
    throw new TemplateError(`the template does not parse: ${problem}`);
  }
  return program as Node;
}

function rewriteTests(tokens: readonly Token[]): Token[] {
  const output: Token[] = [];
  for (let at = 0; at < tokens.length; ) {
    const token = tokens[at] as Token;
    const isNegated = isWord(tokens[at + 1], 'not');
    const nameAt = at + (isNegated ? 2 : 1);
    const argumentEnd = isWord(token, 'is') ? endOfArgument(tokens, nameAt + 1) : nameAt + 1;
    const name = tokens[nameAt];
    if (name?.type !== 'Identifier' || argumentEnd === nameAt + 1) {
      output.push(token);
      at += 1;
      continue;
    }
    const argument = rewriteTests(tokens.slice(nameAt + 1, argumentEnd));
    const isCall = argument[0]?.type === 'OpenParen' && closes(argument);
    output.push(
      like(token, '|', 'Pipe'),
      like(token, isNegated ? NEGATED_TEST_FILTER : TEST_FILTER, 'Identifier'),
      like(token, '(', 'OpenParen'),
      like(token, name.value, 'StringLiteral'),
      like(token, ',', 'Comma'),
      ...(isCall ? argument.slice(1, -1) : argument),
      like(token, ')', 'CloseParen'),
    );
    at = argumentEnd;
  }
  return output;
}

/** Index after a test's argument that begins at `start`: one literal, name or bracket and its members; `start` if none. */
function endOfArgument(tokens: readonly Token[], start: number): number {
  const first = tokens[start];
  if (first === undefined) return start;
  const isName = first.type === 'Identifier' && !CONTINUATIONS.has(first.value);
  const isLiteral = first.type === 'StringLiteral' || first.type === 'NumericLiteral';
  if (!isName && !isLiteral && !CLOSERS.has(first.type)) return start;
  let end = CLOSERS.has(first.type) ? endOfBracket(tokens, start) : start + 1;
  for (;;) {
    const next = tokens[end];
    if (next?.type === 'Dot') end += 2;
    else if (next?.type === 'OpenParen' || next?.type === 'OpenSquareBracket') end = endOfBracket(tokens, end);
    else return end;
  }
}

function endOfBracket(tokens: readonly Token[], start: number): number {
  const open = (tokens[start] as Token).type;
  const close = CLOSERS.get(open);
  let depth = 0;
  for (let at = start; at < tokens.length; at += 1) {
    const { type } = tokens[at] as Token;
    if (type === open) depth += 1;
    if (type === close) depth -= 1;
    if (depth === 0) return at + 1;
  }
  return tokens.length;
}

/** Whether the bracket that opens the tokens closes at their end: `(3)`, not `(3).x`. */
function closes(tokens: readonly Token[]): boolean {
  return endOfBracket(tokens, 0) === tokens.length;
}

function isWord(token: Token | undefined, word: string): boolean {
  return token?.type === 'Identifier' && token.value === word;
}

/** A token of the library's own class, whose constructor it does not export. */
function like(token: Token, value: string, type: Token['type']): Token {
  return Object.assign(Object.create(Object.getPrototypeOf(token)) as Token, { value, type });
}
