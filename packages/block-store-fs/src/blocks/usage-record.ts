import { readWhole, type FileSystem } from '../files/file-system.ts';
import type { CacheLayout } from '../files/cache-layout.ts';
import type { PeriodUse } from './write-budget.ts';

/** What is remembered of a store between processes. */
export interface UsageRecord {
  readonly blocks: number;
  readonly bytes: number;
  readonly writtenBytes: number;
  readonly period: PeriodUse;
  /** Written by a process that stopped in order: the counts are exact. */
  readonly isExact: boolean;
}

const NOTHING: UsageRecord = {
  blocks: 0,
  bytes: 0,
  writtenBytes: 0,
  period: { startMs: 0, bytes: 0 },
  isExact: false,
};

/** A record that is missing or damaged counts as nothing known; the files are then counted again. */
export function readUsage(files: FileSystem, layout: CacheLayout): UsageRecord {
  const bytes = readWhole(files, layout.usage);
  if (bytes === null) return NOTHING;
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) return NOTHING;
    throw error;
  }
  const record = value as Partial<UsageRecord> | null;
  const counts = [record?.blocks, record?.bytes, record?.writtenBytes, record?.period?.bytes, record?.period?.startMs];
  const isSound = counts.every((count) => typeof count === 'number' && Number.isFinite(count) && count >= 0);
  return isSound && typeof record?.isExact === 'boolean' ? (record as UsageRecord) : NOTHING;
}

export function encodeUsage(record: UsageRecord): Uint8Array {
  return Buffer.from(`${JSON.stringify(record)}\n`);
}
