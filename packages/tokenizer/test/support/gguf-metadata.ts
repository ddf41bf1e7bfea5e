import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

const READERS: Readonly<Record<number, readonly [bytes: number, read: (view: DataView, at: number) => unknown]>> = {
  0: [1, (view, at) => view.getUint8(at)],
  1: [1, (view, at) => view.getInt8(at)],
  2: [2, (view, at) => view.getUint16(at, true)],
  3: [2, (view, at) => view.getInt16(at, true)],
  4: [4, (view, at) => view.getUint32(at, true)],
  5: [4, (view, at) => view.getInt32(at, true)],
  6: [4, (view, at) => view.getFloat32(at, true)],
  7: [1, (view, at) => view.getUint8(at) !== 0],
  10: [8, (view, at) => view.getBigUint64(at, true)],
  11: [8, (view, at) => view.getBigInt64(at, true)],
  12: [8, (view, at) => view.getFloat64(at, true)],
};
const STRING = 8;
const ARRAY = 9;

/** Metadata of a GGUF v3 file known to be good, optionally gzipped. Reads the tests' own files; checks nothing. */
export function readGgufMetadata(path: string): Map<string, unknown> {
  const raw = readFileSync(path);
  const bytes = path.endsWith('.gz') ? gunzipSync(raw) : raw;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 16;

  const length = (): number => {
    at += 8;
    return Number(view.getBigUint64(at - 8, true));
  };
  const string = (): string => {
    const size = length();
    at += size;
    return bytes.toString('utf8', at - size, at);
  };
  const value = (type: number): unknown => {
    if (type === STRING) return string();
    if (type === ARRAY) {
      const itemType = view.getUint32(at, true);
      at += 4;
      return Array.from({ length: length() }, () => value(itemType));
    }
    const [size, read] = READERS[type] as NonNullable<(typeof READERS)[number]>;
    at += size;
    return read(view, at - size);
  };

  const metadata = new Map<string, unknown>();
  for (let remaining = length(); remaining > 0; remaining -= 1) {
    const key = string();
    const type = view.getUint32(at, true);
    at += 4;
    metadata.set(key, value(type));
  }
  return metadata;
}
