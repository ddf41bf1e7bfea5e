import type {
  CallNode,
  CallStatementNode,
  FilterNode,
  ForNode,
  IdentifierNode,
  KeywordNode,
  MemberNode,
  Node,
  SetNode,
} from './ast.ts';
import { findFilter } from './filters.ts';
import { MAX_WORK_BYTES } from './limits.ts';
import { getAttribute, getItem, slice } from './members.ts';
import { applyBinary, defined } from './operators.ts';
import { toText } from './python-text.ts';
import { Scope } from './scope.ts';
import { createLoop } from './loop.ts';
import { NEGATED_TEST_FILTER, TEST_FILTER } from './syntax.ts';
import { findTest } from './tests.ts';
import {
  CallArguments,
  PyCallable,
  PyFloat,
  PyGenerator,
  PyObject,
  PyTuple,
  TemplateError,
  Undefined,
  type Value,
  asNumber,
  asText,
  isTrue,
  iterate,
  toKey,
  typeOf,
} from './values.ts';

/** Nodes whose value is new rather than one that was there. */
const MAKERS: ReadonlySet<Node['type']> = new Set([
  'ArrayLiteral',
  'BinaryExpression',
  'CallExpression',
  'FilterExpression',
]);

/** The output grew beyond its limit. */
export class OutputTooLong extends Error {}

/** Collects what is printed and stops where it becomes too long. */
class Output {
  text = '';
  readonly #maxLength: number;

  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  write(text: string): void {
    this.text += text;
    if (this.text.length > this.#maxLength) throw new OutputTooLong();
  }
}

class LoopControl {
  readonly kind: 'Break' | 'Continue';

  constructor(kind: 'Break' | 'Continue') {
    this.kind = kind;
  }
}

/**
 * Evaluates a parsed template with Python's meaning of every operation, as Jinja2's sandbox would: what Jinja2 prints,
 * compares, scopes or refuses comes out the same. It has no clock and no way out; a loop without end is for the caller
 * to stop.
 */
export class Interpreter {
  readonly #maxOutput: number;
  #workLeft = 0;

  /** @param maxOutput longest text any block may give, in UTF-16 units */
  constructor(maxOutput: number) {
    this.#maxOutput = maxOutput;
  }

  /** @throws TemplateError, OutputTooLong */
  render(program: Node, variables: ReadonlyMap<string, Value>): string {
    if (program.type !== 'Program') throw new TemplateError('expected a whole template');
    this.#workLeft = MAX_WORK_BYTES;
    const globals = new Scope(null);
    for (const [name, value] of variables) globals.set(name, value);
    return this.#capture(program.body, new Scope(globals));
  }

  /** What the statements print, as a text of its own. */
  #capture(statements: readonly Node[], scope: Scope): string {
    const output = new Output(this.#maxOutput);
    this.#run(statements, scope, output);
    return output.text;
  }

  #run(statements: readonly Node[], scope: Scope, output: Output): void {
    for (const statement of statements) this.#statement(statement, scope, output);
  }

  #statement(node: Node, scope: Scope, output: Output): void {
    switch (node.type) {
      case 'Comment':
        return;
      case 'Set':
        this.#assign(node.assignee, this.#assigned(node, scope), scope);
        return;
      case 'If':
        this.#run(isTrue(this.#evaluate(node.test, scope)) ? node.body : node.alternate, scope, output);
        return;
      case 'For':
        this.#for(node, scope, output);
        return;
      case 'Macro':
        scope.set(node.name.value, this.#macro(node.name.value, node.args, node.body, scope));
        return;
      case 'CallStatement':
        output.write(this.#callStatement(node, scope));
        return;
      case 'FilterStatement':
        output.write(toText(this.#filter(this.#capture(node.body, new Scope(scope)), node.filter, scope)));
        return;
      case 'Break':
      case 'Continue':
        throw new LoopControl(node.type);
      default:
        output.write(toText(this.#evaluate(node, scope)));
    }
  }

  #assigned(node: SetNode, scope: Scope): Value {
    return node.value === null ? this.#capture(node.body, new Scope(scope)) : this.#evaluate(node.value, scope);
  }

  #assign(target: Node, value: Value, scope: Scope): void {
    if (target.type === 'Identifier') {
      scope.set(target.value, value);
    } else if (target.type === 'TupleLiteral') {
      const items = iterate(value);
      if (items.length !== target.value.length) {
        const problem = items.length < target.value.length ? 'not enough' : 'too many';
        throw new TemplateError(`${problem} values to unpack (expected ${target.value.length}, got ${items.length})`);
      }
      for (const [index, part] of target.value.entries()) this.#assign(part, items[index] as Value, scope);
    } else if (target.type === 'MemberExpression' && target.property.type === 'Identifier') {
      const object = this.#evaluate(target.object, scope);
      if (!(object instanceof PyObject) || !object.isNamespace) {
        throw new TemplateError('cannot assign attribute on non-namespace object');
      }
      object.attributes.set(target.property.value, value);
    } else {
      throw new TemplateError(`cannot assign to ${target.type}`);
    }
  }

  #for(node: ForNode, scope: Scope, output: Output): void {
    const { iterable, test } =
      node.iterable.type === 'SelectExpression'
        ? { iterable: node.iterable.lhs, test: node.iterable.test }
        : { iterable: node.iterable, test: null };
    const all = iterate(this.#evaluate(iterable, scope));
    const items =
      test === null ? all : all.filter((item) => isTrue(this.#evaluate(test, this.#bound(node, item, scope))));
    if (items.length === 0) this.#run(node.defaultBlock, new Scope(scope), output);
    const loop = createLoop(items);
    for (const [index, item] of items.entries()) {
      const body = this.#bound(node, item, scope);
      body.set('loop', loop.at(index));
      try {
        this.#run(node.body, body, output);
      } catch (control) {
        if (!(control instanceof LoopControl)) throw control;
        if (control.kind === 'Break') break;
      }
    }
  }

  #bound(node: ForNode, item: Value, scope: Scope): Scope {
    const inner = new Scope(scope);
    this.#assign(node.loopvar, item, inner);
    return inner;
  }

  #macro(
    name: string,
    parameters: readonly (IdentifierNode | KeywordNode)[],
    body: readonly Node[],
    definedIn: Scope,
  ): PyCallable {
    return new PyCallable(name, (args) => {
      const scope = new Scope(definedIn);
      const names = new Set<string>();
      for (const [index, parameter] of parameters.entries()) {
        const key = parameter.type === 'Identifier' ? parameter : parameter.key;
        names.add(key.value);
        const given = args.get(index, key.value);
        scope.set(key.value, given === undefined ? this.#fallback(parameter, scope) : given);
      }
      const caller = args.named.get('caller');
      if (caller !== undefined) scope.set('caller', caller);
      scope.set('varargs', new PyTuple(args.positional.slice(parameters.length)));
      scope.set('kwargs', new Map([...args.named].filter(([key]) => !names.has(key) && key !== 'caller')));
      return this.#capture(body, scope);
    });
  }

  #fallback(parameter: IdentifierNode | KeywordNode, scope: Scope): Value {
    if (parameter.type === 'KeywordArgumentExpression') return this.#evaluate(parameter.value, scope);
    return new Undefined(`parameter '${parameter.value}', which was not provided,`);
  }

  #callStatement(node: CallStatementNode, scope: Scope): string {
    const caller = this.#macro('caller', node.callerArgs ?? [], node.body, scope);
    const args = this.#arguments(node.call.args, scope);
    const named = new Map([...args.named, ['caller', caller] as const]);
    return toText(this.#invoke(node.call, new CallArguments(args.positional, named), scope));
  }

  #evaluate(node: Node, scope: Scope): Value {
    const value = this.#valueOf(node, scope);
    const isSlice = node.type === 'MemberExpression' && node.property.type === 'SliceExpression';
    if (isSlice || MAKERS.has(node.type)) this.#charge(value);
    return value;
  }

  /** Lists and texts a template makes are counted, not collected: it has no use for more than the limit. */
  #charge(value: Value): void {
    this.#workLeft -=
      Array.isArray(value) || value instanceof PyGenerator ? value.length * 8 : (asText(value)?.length ?? 0);
    if (this.#workLeft < 0)
      throw new TemplateError(`expected lists and texts of at most ${MAX_WORK_BYTES} bytes in all`);
  }

  #valueOf(node: Node, scope: Scope): Value {
    switch (node.type) {
      case 'StringLiteral':
      case 'IntegerLiteral':
        return node.value;
      case 'FloatLiteral':
        return new PyFloat(node.value);
      case 'ArrayLiteral':
        return node.value.map((item) => this.#evaluate(item, scope));
      case 'TupleLiteral':
        return new PyTuple(node.value.map((item) => this.#evaluate(item, scope)));
      case 'ObjectLiteral':
        return new Map(
          [...node.value].map(([key, value]) => [toKey(this.#evaluate(key, scope)), this.#evaluate(value, scope)]),
        );
      case 'Identifier':
        return this.#lookUp(node.value, scope);
      case 'MemberExpression':
        return this.#member(node, scope);
      case 'CallExpression':
        return this.#invoke(node, this.#arguments(node.args, scope), scope);
      case 'FilterExpression':
        return this.#filter(this.#evaluate(node.operand, scope), node.filter, scope);
      case 'TestExpression': {
        const test = findTest(node.test.value);
        return test(this.#evaluate(node.operand, scope), new CallArguments()) !== node.negate;
      }
      case 'UnaryExpression':
        return unary(node.operator.value, this.#evaluate(node.argument, scope));
      case 'BinaryExpression':
        return this.#binary(node.operator.value, node.left, node.right, scope);
      case 'Ternary':
        return this.#evaluate(isTrue(this.#evaluate(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case 'SelectExpression':
        return isTrue(this.#evaluate(node.test, scope))
          ? this.#evaluate(node.lhs, scope)
          : new Undefined('the inline if-expression evaluated to false and no else section was defined, so its value');
      default:
        throw new TemplateError(`expected an expression, found ${node.type}`);
    }
  }

  #lookUp(name: string, scope: Scope): Value {
    const value = scope.get(name);
    return value === undefined ? new Undefined(`'${name}'`) : value;
  }

  #binary(operator: string, left: Node, right: Node, scope: Scope): Value {
    const value = this.#evaluate(left, scope);
    if (operator === 'and') return isTrue(value) ? this.#evaluate(right, scope) : value;
    if (operator === 'or') return isTrue(value) ? value : this.#evaluate(right, scope);
    return applyBinary(operator, value, this.#evaluate(right, scope));
  }

  #member(node: MemberNode, scope: Scope): Value {
    const object = this.#evaluate(node.object, scope);
    const { property } = node;
    if (property.type === 'SliceExpression') {
      const bound = (part: Node | undefined): number | null =>
        part === undefined ? null : asNumber(defined(this.#evaluate(part, scope)));
      return slice(defined(object), bound(property.start), bound(property.stop), bound(property.step));
    }
    if (node.computed) return getItem(object, this.#evaluate(property, scope));
    return property.type === 'Identifier'
      ? getAttribute(object, property.value)
      : getItem(object, this.#evaluate(property, scope));
  }

  #invoke(node: CallNode, args: CallArguments, scope: Scope): Value {
    const callee = this.#evaluate(node.callee, scope);
    if (callee instanceof PyCallable) return callee.call(args);
    throw new TemplateError(`'${typeOf(defined(callee))}' object is not callable`);
  }

  #filter(value: Value, node: FilterNode['filter'], scope: Scope): Value {
    if (node.type === 'Identifier') return findFilter(node.value)(value, new CallArguments());
    const name = node.callee.type === 'Identifier' ? node.callee.value : '';
    const args = this.#arguments(node.args, scope);
    if (name !== TEST_FILTER && name !== NEGATED_TEST_FILTER) return findFilter(name)(value, args);
    const [test = '', ...rest] = args.positional;
    return findTest(asText(test) ?? '')(value, new CallArguments(rest, args.named)) === (name === TEST_FILTER);
  }

  #arguments(nodes: readonly Node[], scope: Scope): CallArguments {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    for (const node of nodes) {
      if (node.type === 'KeywordArgumentExpression') {
        named.set(node.key.value, this.#evaluate(node.value, scope));
      } else if (node.type === 'SpreadExpression') {
        positional.push(...iterate(this.#evaluate(node.argument, scope)));
      } else if (node.type === 'KeywordSpreadExpression') {
        const value = this.#evaluate(node.argument, scope);
        if (!(value instanceof Map)) throw new TemplateError('argument after ** must be a mapping');
        for (const [key, member] of value) named.set(String(key), member);
      } else {
        positional.push(this.#evaluate(node, scope));
      }
    }
    return new CallArguments(positional, named);
  }
}

function unary(operator: string, value: Value): Value {
  if (operator === 'not') return !isTrue(value);
  const number = asNumber(defined(value));
  if (number === null) throw new TemplateError(`bad operand type for unary ${operator}: '${typeOf(value)}'`);
  const result = operator === '-' ? -number : number;
  return value instanceof PyFloat ? new PyFloat(result) : result;
}
