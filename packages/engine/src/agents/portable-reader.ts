import { KvasirError, type MemoryBlock } from '@kvasir/domain';
import { ByteStream } from './byte-stream.ts';
import { parseHeader } from './portable-header.ts';
import {
  type Checksum,
  decodeSeal,
  decodeTokens,
  MAX_HEADER_BYTES,
  payloadBytes,
  type PortableAgent,
  SEAL_BYTES,
} from './portable-format.ts';

export interface PortableLimits {
  readonly vocabularySize: number;
}

/**
 * Reads an exported agent. What it hands out has been verified: the header and the tokens together before anything else,
 * each block before it is given. Nothing is allocated for more than one block.
 */
export class PortableReader {
  readonly agent: PortableAgent;
  readonly tokenIds: Int32Array;
  readonly #stream: ByteStream;
  readonly #checksum: Checksum;

  private constructor(agent: PortableAgent, tokenIds: Int32Array, stream: ByteStream, checksum: Checksum) {
    this.agent = agent;
    this.tokenIds = tokenIds;
    this.#stream = stream;
    this.#checksum = checksum;
  }

  /** @throws KvasirError `file-truncated`, `file-corrupt`, `file-foreign` */
  static async open(stream: ByteStream, checksum: Checksum, limits: PortableLimits): Promise<PortableReader> {
    const prefix = await stream.read(8);
    const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
    if (length < 2n || length > BigInt(MAX_HEADER_BYTES)) {
      throw new KvasirError(
        'file-foreign',
        `agent file: expected a safetensors header of 2 to ${MAX_HEADER_BYTES} bytes, found ${length}`,
      );
    }
    const body = await stream.read(Number(length));
    const agent = parseHeader(body);
    const [headerSum, tokensSum] = decodeSeal(await stream.read(SEAL_BYTES));
    if (checksum(body, checksum(prefix, 0)) !== headerSum) throw corrupt('header');
    const bytes = await stream.read(agent.numTokens * 4);
    if (checksum(bytes, 0) !== tokensSum) throw corrupt('tokens');
    const tokenIds = decodeTokens(bytes);
    const wrong = tokenIds.find((id) => id < 0 || id >= limits.vocabularySize);
    if (wrong !== undefined) {
      throw new KvasirError(
        'file-corrupt',
        `agent file: expected token ids from 0 to ${limits.vocabularySize - 1}, found ${wrong}`,
      );
    }
    return new PortableReader(agent, tokenIds, stream, checksum);
  }

  /**
   * Every block of the file in order, null for one the exporter no longer had. To be read to the end: only then it is
   * sure that the file ends where it says. @throws KvasirError `file-truncated`, `file-corrupt`
   */
  async *blocks(): AsyncGenerator<MemoryBlock | null> {
    for (const { group, hash, startToken, numTokens, shape } of this.agent.blocks) {
      const payload = await this.#stream.read(payloadBytes(shape));
      const [isThere, sum] = decodeSeal(await this.#stream.read(SEAL_BYTES));
      if (isThere === 0) {
        yield null;
        continue;
      }
      if (isThere !== 1 || sumOf(payload, this.#checksum) !== sum) throw corrupt(`block ${group}.${startToken}`);
      const tokenIds = this.tokenIds.subarray(startToken, startToken + numTokens);
      yield { key: { hash, group }, startToken, tokenIds, shape, payload };
    }
    await this.#stream.requireEnd();
  }
}

const PIECE_BYTES = 1 << 20;

function sumOf(bytes: Uint8Array, checksum: Checksum): number {
  let crc = 0;
  for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
    crc = checksum(bytes.subarray(start, start + PIECE_BYTES), crc);
  }
  return crc;
}

function corrupt(part: string): KvasirError {
  return new KvasirError(
    'file-corrupt',
    `agent file: expected the ${part} to match its checksum, found another; export the agent again`,
    { facts: { part } },
  );
}
