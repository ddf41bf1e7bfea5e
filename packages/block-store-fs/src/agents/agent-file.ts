import { applyAgentEntry, isKvasirError, type AgentManifest } from '@kvasir/domain';
import { decodeEntry, decodeManifest, encodeManifest } from './agent-codec.ts';
import { DecodeFault } from './binary.ts';
import { frameRecord, MAGIC_BYTES, scanRecords } from './record-log.ts';

/**
 * One file an agent: a manifest as the first record, then a journal of the entries after it. One file and not two, so that
 * a snapshot and the journal it replaces change places in one rename.
 */
export const AGENT_MAGIC = 'KVAGENT1';

export interface ParsedAgentFile {
  readonly manifest: AgentManifest;
  /** Where the next record goes; less than the file's size where a tail has to be cut. */
  readonly goodBytes: number;
  readonly ending: 'whole' | 'torn' | 'damaged';
  /** Entries after the manifest. */
  readonly numEntries: number;
}

export function encodeAgentFile(manifest: AgentManifest): Uint8Array {
  return Buffer.concat([Buffer.from(AGENT_MAGIC, 'latin1'), frameRecord(encodeManifest(manifest))]);
}

/** @returns null when not even the manifest can be read, or it is another agent's */
export function parseAgentFile(bytes: Uint8Array, agentId: string): ParsedAgentFile | null {
  const scan = scanRecords(bytes, AGENT_MAGIC);
  const [first, ...rest] = scan.bodies;
  if (scan.ending === 'foreign' || first === undefined) return null;
  let manifest: AgentManifest;
  try {
    manifest = decodeManifest(first);
  } catch (error) {
    if (error instanceof DecodeFault) return null;
    throw error;
  }
  if (manifest.agentId !== agentId) return null;
  let goodBytes = MAGIC_BYTES + frameBytes(first);
  let numEntries = 0;
  for (const body of rest) {
    try {
      manifest = applyAgentEntry(manifest, decodeEntry(body));
    } catch (error) {
      // Whole by its checksum and yet no entry that fits: another version's, or damage before the sum was taken.
      if (error instanceof DecodeFault || (isKvasirError(error) && error.code === 'invalid-argument')) {
        return { manifest, goodBytes, ending: 'damaged', numEntries };
      }
      throw error;
    }
    goodBytes += frameBytes(body);
    numEntries++;
  }
  return { manifest, goodBytes, ending: scan.ending, numEntries };
}

function frameBytes(body: Uint8Array): number {
  return body.length + 8;
}
