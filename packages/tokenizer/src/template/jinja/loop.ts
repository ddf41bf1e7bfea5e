import { equals } from './operators.ts';
import { PyCallable, PyObject, PyTuple, Undefined, type Value } from './values.ts';

/** The `loop` variable over known items, one object an iteration. */
export function createLoop(items: readonly Value[]): { at(index: number): PyObject } {
  const { length } = items;
  let lastChecked: Value | null = null;
  const changed = new PyCallable('changed', (args) => {
    const current = new PyTuple(args.positional);
    const isSame = lastChecked !== null && equals(lastChecked, current);
    lastChecked = current;
    return !isSame;
  });
  return {
    at: (index) =>
      new PyObject(
        'LoopContext',
        new Map<string, Value>([
          ['index', index + 1],
          ['index0', index],
          ['revindex', length - index],
          ['revindex0', length - index - 1],
          ['first', index === 0],
          ['last', index === length - 1],
          ['length', length],
          ['previtem', index === 0 ? new Undefined('there is no previous item, which') : (items[index - 1] as Value)],
          [
            'nextitem',
            index === length - 1 ? new Undefined('there is no next item, which') : (items[index + 1] as Value),
          ],
          ['depth', 1],
          ['depth0', 0],
          ['cycle', new PyCallable('cycle', (args) => args.positional[index % args.positional.length] ?? null)],
          ['changed', changed],
        ]),
      ),
  };
}
