import { appendFileSync } from 'node:fs';
import type { LogitsComparison } from '@kvasir/reference';

/** One line of the conformance report: what was compared with what. */
export interface Conformance {
  readonly model: string;
  readonly format: string;
  readonly mode: string;
  readonly reference: string;
  readonly instructionPath: string;
  readonly bound: number;
}

/** Prints a comparison, and adds it to the file the report script names. */
export function report(what: Conformance, comparison: LogitsComparison): void {
  const line = JSON.stringify({ ...what, ...comparison });
  console.log(line);
  const file = process.env['KVASIR_CONFORMANCE_REPORT'];
  if (file !== undefined) appendFileSync(file, `${line}\n`);
}
