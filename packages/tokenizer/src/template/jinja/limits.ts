import { TemplateError } from './values.ts';

/** Longest text one operation may make, in UTF-16 units: a worker that runs out of heap can take its process along. */
export const MAX_TEXT = 1 << 26;

/** What a render may make in all, in bytes of lists and texts, garbage included. */
export const MAX_WORK_BYTES = 256 * 2 ** 20;

export function checkText(length: number): void {
  if (length > MAX_TEXT)
    throw new TemplateError(`expected texts of at most ${MAX_TEXT} characters, one would be longer`);
}

/** Counts down while a text is put together from parts that may be shared and so outgrow what they were made from. */
export class Room {
  #left = MAX_TEXT;

  take(length: number): void {
    this.#left -= length + 1;
    if (this.#left < 0) checkText(MAX_TEXT + 1);
  }
}
