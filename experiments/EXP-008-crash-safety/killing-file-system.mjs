// The machine's disk, with a bullet in it: at the n-th operation of a phase the process kills itself with SIGKILL, in the
// middle of a write or right before a rename, a removal or a flush.
import { NodeFileSystem } from '../../packages/block-store-fs/dist/files/node-file-system.js';

/** Which operations belong to a phase; `path` is relative to the cache directory. */
const PHASES = {
  'journal-write': ({ kind, path }) => ['write', 'flush'].includes(kind) && path.startsWith('agents/'),
  'block-write': ({ kind, path }) => ['write', 'flush'].includes(kind) && path.startsWith('blocks/'),
  rename: ({ kind }) => kind === 'rename' || kind === 'flush-directory',
  delete: ({ kind }) => kind === 'remove',
  'index-update': ({ kind, path }) =>
    ['write', 'flush', 'rename'].includes(kind) && /^agents\.index$|^agents\/temporary\/index/.test(path),
};
export const OPERATION_PHASES = Object.keys(PHASES);

export class KillingFileSystem extends NodeFileSystem {
  #paths = new Map();
  #left;

  constructor(directory, phase, countdown, random) {
    super();
    this.directory = directory;
    this.belongs = PHASES[phase];
    this.#left = countdown;
    this.random = random;
  }

  open(path, mode) {
    const file = super.open(path, mode);
    this.#paths.set(file, path);
    return file;
  }

  write(file, pieces) {
    this.#shoot('write', this.#paths.get(file), () => {
      const bytes = Buffer.concat(pieces);
      super.write(file, [bytes.subarray(0, Math.floor(this.random() * (bytes.length + 1)))]);
    });
    super.write(file, pieces);
  }

  async flush(files) {
    for (const file of files) this.#shoot('flush', this.#paths.get(file));
    await super.flush(files);
  }

  async flushDirectories(paths) {
    for (const path of paths) this.#shoot('flush-directory', path);
    await super.flushDirectories(paths);
  }

  rename(from, to) {
    this.#shoot('rename', to);
    super.rename(from, to);
  }

  remove(path) {
    this.#shoot('remove', path);
    return super.remove(path);
  }

  #shoot(kind, path, meanwhile) {
    if (!this.belongs({ kind, path: path.slice(this.directory.length + 1) })) return;
    if (--this.#left > 0) return;
    meanwhile?.();
    process.kill(process.pid, 'SIGKILL');
  }
}
