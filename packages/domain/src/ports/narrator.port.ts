/** Receives what happens, as structured events; the server turns them into log lines and metrics. */
export interface Narrator {
  narrate(event: NarratorEvent): void;
}

/** `name` is noun-verb (`sequence-preempted`); facts are numbers and short strings, never prompt text. */
export interface NarratorEvent {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly name: string;
  readonly facts: Readonly<Record<string, string | number | boolean | null>>;
}
