import type { Narrator, NarratorEvent } from '@kvasir/domain';

/** Keeps every event. */
export class RecordingNarrator implements Narrator {
  readonly events: NarratorEvent[] = [];

  narrate(event: NarratorEvent): void {
    this.events.push(event);
  }

  named(name: string): readonly NarratorEvent[] {
    return this.events.filter((event) => event.name === name);
  }
}
