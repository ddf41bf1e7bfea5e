import { KvasirError } from '@kvasir/domain';

export interface StopMatch {
  /** Text that is certain not to be part of a stop string; at a stop, all of it before the stop. */
  readonly text: string;
  /** The stop string that was reached, or null. */
  readonly stop: string | null;
  /** UTF-16 units given out so far, `text` included: at a stop, the length of the whole answer. */
  readonly emittedCharacters: number;
}

/**
 * Finds stop strings in streamed text, whatever the pieces it comes in. The stop that is complete first wins; of several
 * complete at the same character the one that began first. Nothing is given out that could still become a stop.
 */
export interface StopMatcher {
  /** @throws KvasirError `invariant-broken` after a stop: what follows one has no meaning */
  push(text: string): StopMatch;
  /** What was held back, once no more text comes. */
  flush(): string;
}

/** One state of the Aho-Corasick automaton: the longest suffix of the text that begins a stop string. */
interface State {
  readonly next: Map<number, State>;
  readonly depth: number;
  fallback: State | null;
  /** Longest stop string that ends here, also by way of fallbacks. */
  stop: string | null;
}

/**
 * @param stops non-empty strings; none at all makes a matcher that passes text through
 * @throws KvasirError `invalid-argument` for an empty stop string
 */
export function createStopMatcher(stops: readonly string[]): StopMatcher {
  const root = buildAutomaton(stops);
  let state = root;
  let held = '';
  let emittedCharacters = 0;
  let stopped = false;

  return {
    push(text) {
      if (stopped) {
        throw new KvasirError('invariant-broken', 'stop matcher: expected no text after a stop, found more');
      }
      const all = held + text;
      for (let index = 0; index < text.length; index += 1) {
        state = advance(root, state, text.charCodeAt(index));
        if (state.stop !== null) {
          stopped = true;
          const before = all.slice(0, held.length + index + 1 - state.stop.length);
          held = '';
          emittedCharacters += before.length;
          return { text: before, stop: state.stop, emittedCharacters };
        }
      }
      const ready = all.slice(0, all.length - state.depth);
      held = all.slice(all.length - state.depth);
      emittedCharacters += ready.length;
      return { text: ready, stop: null, emittedCharacters };
    },
    flush() {
      const rest = held;
      held = '';
      state = root;
      emittedCharacters += rest.length;
      return rest;
    },
  };
}

function advance(root: State, from: State, unit: number): State {
  for (let state: State | null = from; state !== null; state = state.fallback) {
    const next = state.next.get(unit);
    if (next !== undefined) return next;
  }
  return root;
}

function buildAutomaton(stops: readonly string[]): State {
  const root: State = { next: new Map(), depth: 0, fallback: null, stop: null };
  for (const stop of stops) {
    if (stop === '') throw new KvasirError('invalid-argument', 'stop: expected a non-empty string, found an empty one');
    let state = root;
    for (let index = 0; index < stop.length; index += 1) {
      const unit = stop.charCodeAt(index);
      let next = state.next.get(unit);
      if (next === undefined) {
        next = { next: new Map(), depth: state.depth + 1, fallback: root, stop: null };
        state.next.set(unit, next);
      }
      state = next;
    }
    state.stop = stop;
  }
  linkFallbacks(root);
  return root;
}

/** Breadth first, so a state's fallback, which is shorter, is finished before it. */
function linkFallbacks(root: State): void {
  const queue = [...root.next.values()];
  for (const state of queue) {
    for (const [unit, child] of state.next) {
      child.fallback = state.fallback === null ? root : advance(root, state.fallback, unit);
      child.stop ??= child.fallback.stop;
      queue.push(child);
    }
  }
}
