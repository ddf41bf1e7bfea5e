/** Copied between two turns of the event loop: well under a millisecond. */
const SLICE_BYTES = 1 << 19;

/** Threads can be given views of shared memory without a copy. */
export function isShared(bytes: Uint8Array): boolean {
  return bytes.buffer instanceof SharedArrayBuffer;
}

/** Copies piece by piece, so that the calling thread stays free for others. */
export async function copyInSlices(from: Uint8Array, into: Uint8Array): Promise<void> {
  for (let start = 0; start < from.length; start += SLICE_BYTES) {
    into.set(from.subarray(start, start + SLICE_BYTES), start);
    if (start + SLICE_BYTES < from.length) await nextTurn();
  }
}

/** Resolves on a later turn of the event loop, after what waits for this one. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
