import type { ModelRunner } from '@kvasir/domain';
import { fromHalf, fromStoredKey, toStoredKey, type HeadPlace, type StoreHead } from '@kvasir/reference';

/** What a runner's q8 or q4 pool holds, read out of its payloads, and how far that is from what should be held. */
export interface StoredHeads {
  readonly storeHead: StoreHead;
  /** Largest distance of a stored value from the one it stands for, in steps of its group's codes. */
  readonly largestSteps: () => number;
}

/**
 * A `storeHead` for the oracle that gives what the engine itself stored, so that a value between two codes may fall to
 * either side, and measures how far from the middle between two codes that ever happened.
 */
export async function storedHeads(runner: ModelRunner, blocks: ArrayLike<number>): Promise<StoredHeads> {
  const { cacheSpec } = runner.info;
  const { kvDType, blockTokens } = cacheSpec;
  const shape = cacheSpec.payloadShape();
  const payload = await runner.readBlocks(0, Int32Array.from(blocks));
  const bytes = cacheSpec.bytesPerBlock();
  let largest = 0;

  const recordOf = (component: 'k' | 'v', { layer, token, kvHead }: HeadPlace) => {
    const stripe = (layer * 2 + (component === 'k' ? 0 : 1)) * shape.heads + kvHead;
    const at = Math.floor(token / blockTokens) * bytes + (stripe * blockTokens + (token % blockTokens)) * shape.dim;
    return new DataView(payload.buffer, payload.byteOffset + at, shape.dim);
  };
  const storeHead: StoreHead = (head, component, place) => {
    const record = recordOf(component, place);
    const width = Math.min(64, head.length);
    const groups = head.length / width;
    const half = (at: number) => fromHalf(record.getUint16(at, true));
    const codeBytes = kvDType === 'q8' ? head.length : head.length / 2;
    const stored = new Float64Array(head.length);
    for (let g = 0; g < groups; g++) {
      const scale = half(codeBytes + 2 * g);
      const minimum = kvDType === 'q8' ? 0 : half(codeBytes + 2 * (groups + g));
      const values = Float64Array.from({ length: width }, (_, i) => {
        if (kvDType === 'q8') return scale * record.getInt8(g * width + i);
        const byte = record.getUint8((g * width) / 2 + (i % (width / 2)));
        return minimum + scale * (i < width / 2 ? byte & 15 : byte >> 4);
      });
      const group = head.slice(g * width, (g + 1) * width);
      const wanted = component === 'k' ? toStoredKey(group) : group;
      for (const [i, value] of values.entries()) {
        largest = Math.max(largest, Math.abs(value - (wanted[i] as number)) / scale);
      }
      stored.set(component === 'k' ? fromStoredKey(values) : values, g * width);
    }
    return stored;
  };
  return { storeHead, largestSteps: () => largest };
}
