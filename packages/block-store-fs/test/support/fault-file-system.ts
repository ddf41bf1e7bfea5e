import type { FileFacts, FileSystem } from '../../src/files/file-system.ts';

/** One change to the disk, or a note of what callers were told by then. */
export type Operation =
  | { readonly kind: 'create'; readonly path: string }
  | { readonly kind: 'write'; readonly path: string; readonly bytes: Uint8Array }
  | { readonly kind: 'truncate'; readonly path: string; readonly length: number }
  | { readonly kind: 'flush'; readonly paths: readonly string[] }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'remove'; readonly path: string }
  | { readonly kind: 'makeDirectory'; readonly path: string }
  | { readonly kind: 'flushDirectories'; readonly paths: readonly string[] }
  | { readonly kind: 'told'; readonly fact: string };

/** How much of what was not flushed a crash leaves. `process`: the process dies, the machine does not. */
export type Crash = 'process' | 'nothing' | 'names-only' | 'data-only' | 'prefixes' | 'subsets';

interface FileNode {
  readonly kind: 'file';
  readonly id: number;
  bytes: Uint8Array;
  durable: Uint8Array;
  pending: (
    | { readonly kind: 'write'; readonly offset: number; readonly bytes: Uint8Array }
    | { readonly kind: 'truncate'; readonly length: number }
  )[];
}

interface DirectoryNode {
  readonly kind: 'directory';
  readonly entries: Map<string, TreeNode>;
  readonly durable: Map<string, TreeNode>;
  pending: { readonly name: string; readonly node: TreeNode | null }[];
}

type TreeNode = FileNode | DirectoryNode;

/**
 * A disk in memory that remembers which changes were flushed. Data and names are durable only after their own flush: a
 * rename across directories needs both of them flushed, and may be half done. Recording a run and replaying a prefix of it
 * gives the disk at any moment; `crashed` gives one that a power cut may leave at that moment.
 */
export class FaultFileSystem implements FileSystem {
  readonly log: Operation[] = [];
  readonly #root: DirectoryNode = directoryNode();
  readonly #open = new Map<number, { readonly node: FileNode; readonly path: string }>();
  #nextFile = 3;
  #nextId = 1;
  /** Thrown by the next writes, as a full or broken disk would. */
  failure: { readonly code: string; readonly on: 'write' | 'flush' | 'rename' | 'create' } | null = null;

  static replay(log: readonly Operation[]): FaultFileSystem {
    const files = new FaultFileSystem();
    for (const operation of log) files.#apply(operation);
    return files;
  }

  /** Does again what another disk in the same state has recorded. */
  replayOn(log: readonly Operation[]): void {
    for (const operation of log) this.#apply(operation);
  }

  tell(fact: string): void {
    this.log.push({ kind: 'told', fact });
  }

  open(path: string, mode: 'read' | 'append' | 'create'): number {
    if (mode === 'create') {
      this.#failOn('create');
      if (this.#find(path) !== null) throw failure('EEXIST', path);
      this.#run({ kind: 'create', path });
    }
    const node = this.#find(path);
    if (node?.kind !== 'file') throw failure('ENOENT', path);
    const file = this.#nextFile++;
    this.#open.set(file, { node, path });
    return file;
  }

  close(file: number): void {
    if (!this.#open.delete(file)) throw failure('EBADF', String(file));
  }

  read(file: number, pieces: readonly Uint8Array[], position: number): number {
    const { node } = this.#fileOf(file);
    let done = 0;
    for (const piece of pieces) {
      const part = node.bytes.subarray(position + done, position + done + piece.length);
      piece.set(part);
      done += part.length;
    }
    return done;
  }

  write(file: number, pieces: readonly Uint8Array[]): void {
    const { path } = this.#fileOf(file);
    if (this.failure?.on === 'write') {
      // A full disk takes a part.
      const first = pieces[0];
      if (first !== undefined) this.#run({ kind: 'write', path, bytes: first.slice(0, first.length >> 1) });
      this.#failOn('write');
    }
    for (const bytes of pieces) if (bytes.length > 0) this.#run({ kind: 'write', path, bytes: bytes.slice() });
  }

  truncate(file: number, length: number): void {
    this.#run({ kind: 'truncate', path: this.#fileOf(file).path, length });
  }

  async flush(files: readonly number[]): Promise<void> {
    const paths = files.map((file) => this.#fileOf(file).path);
    this.#failOn('flush');
    // Asynchronous, so that other work may come between as it does on a disk.
    await Promise.resolve();
    this.#run({ kind: 'flush', paths });
  }

  rename(from: string, to: string): void {
    this.#failOn('rename');
    if (this.#find(from) === null) throw failure('ENOENT', from);
    this.#run({ kind: 'rename', from, to });
  }

  remove(path: string): boolean {
    if (this.#find(path) === null) return false;
    this.#run({ kind: 'remove', path });
    return true;
  }

  makeDirectory(path: string): void {
    const parts = path.split('/').filter((part) => part !== '');
    for (let count = 1; count <= parts.length; count++) {
      const parent = `/${parts.slice(0, count).join('/')}`;
      if (this.#find(parent) === null) this.#run({ kind: 'makeDirectory', path: parent });
    }
  }

  list(path: string): readonly string[] {
    const node = this.#find(path);
    return node?.kind === 'directory' ? [...node.entries.keys()] : [];
  }

  describe(path: string): FileFacts | null {
    const node = this.#find(path);
    if (node === null) return null;
    return node.kind === 'file'
      ? { bytes: node.bytes.length, inode: node.id, modifiedMs: 0 }
      : { bytes: 0, inode: 0, modifiedMs: 0 };
  }

  async flushDirectories(paths: readonly string[]): Promise<void> {
    for (const path of paths) if (this.#find(path) === null) throw failure('ENOENT', path);
    await Promise.resolve();
    this.#run({ kind: 'flushDirectories', paths });
  }

  touch(): void {}

  /** Every file with its bytes. */
  files(): ReadonlyMap<string, Uint8Array> {
    const found = new Map<string, Uint8Array>();
    const walk = (node: DirectoryNode, path: string): void => {
      for (const [name, child] of node.entries) {
        if (child.kind === 'file') found.set(`${path}/${name}`, child.bytes);
        else walk(child, `${path}/${name}`);
      }
    };
    walk(this.#root, '');
    return found;
  }

  /** Damages a file in place. */
  corrupt(path: string, change: (bytes: Uint8Array) => Uint8Array): void {
    const node = this.#find(path);
    if (node?.kind !== 'file') throw failure('ENOENT', path);
    node.bytes = change(node.bytes.slice());
    node.durable = node.bytes;
  }

  /** @param random from 0 to below 1; decides what stays where the kind of crash leaves a choice */
  crashed(crash: Crash, random: () => number): FaultFileSystem {
    const after = new FaultFileSystem();
    const copies = new Map<TreeNode, TreeNode>();
    const copy = (node: TreeNode): TreeNode => {
      const known = copies.get(node);
      if (known !== undefined) return known;
      if (node.kind === 'file') {
        const bytes = contentAfter(node, crash, random);
        const file: FileNode = { kind: 'file', id: node.id, bytes, durable: bytes, pending: [] };
        copies.set(node, file);
        return file;
      }
      const directory = directoryNode();
      copies.set(node, directory);
      for (const [name, child] of entriesAfter(node, crash, random)) {
        const kept = copy(child);
        directory.entries.set(name, kept);
        directory.durable.set(name, kept);
      }
      return directory;
    };
    const root = copy(this.#root) as DirectoryNode;
    for (const [name, node] of root.entries) {
      after.#root.entries.set(name, node);
      after.#root.durable.set(name, node);
    }
    after.#nextId = this.#nextId;
    return after;
  }

  // ------------------------------------------------------------------------------------------------------------- pieces

  #run(operation: Operation): void {
    this.#apply(operation);
    this.log.push(operation);
  }

  #apply(operation: Operation): void {
    switch (operation.kind) {
      case 'told':
        return;
      case 'create': {
        const empty = new Uint8Array();
        this.#set(operation.path, { kind: 'file', id: this.#nextId++, bytes: empty, durable: empty, pending: [] });
        return;
      }
      case 'makeDirectory':
        this.#set(operation.path, directoryNode());
        return;
      case 'write': {
        const node = this.#requireFile(operation.path);
        node.pending.push({ kind: 'write', offset: node.bytes.length, bytes: operation.bytes });
        node.bytes = Buffer.concat([node.bytes, operation.bytes]);
        return;
      }
      case 'truncate': {
        const node = this.#requireFile(operation.path);
        node.pending.push({ kind: 'truncate', length: operation.length });
        node.bytes = node.bytes.slice(0, operation.length);
        return;
      }
      case 'flush':
        for (const path of operation.paths) {
          const node = this.#requireFile(path);
          node.durable = node.bytes;
          node.pending = [];
        }
        return;
      case 'rename': {
        const node = this.#find(operation.from);
        if (node === null) throw failure('ENOENT', operation.from);
        this.#set(operation.from, null);
        this.#set(operation.to, node);
        return;
      }
      case 'remove':
        this.#set(operation.path, null);
        return;
      case 'flushDirectories':
        for (const path of operation.paths) {
          const node = this.#find(path);
          if (node?.kind !== 'directory') continue;
          node.durable.clear();
          for (const [name, child] of node.entries) node.durable.set(name, child);
          node.pending = [];
        }
    }
  }

  #set(path: string, node: TreeNode | null): void {
    const slash = path.lastIndexOf('/');
    const parent = this.#find(path.slice(0, slash) || '/');
    if (parent?.kind !== 'directory') throw failure('ENOENT', path);
    const name = path.slice(slash + 1);
    if (node === null) parent.entries.delete(name);
    else parent.entries.set(name, node);
    parent.pending.push({ name, node });
  }

  #find(path: string): TreeNode | null {
    let node: TreeNode | undefined = this.#root;
    for (const part of path.split('/')) {
      if (part === '') continue;
      node = node?.kind === 'directory' ? node.entries.get(part) : undefined;
    }
    return node ?? null;
  }

  #requireFile(path: string): FileNode {
    const node = this.#find(path);
    if (node?.kind !== 'file') throw failure('ENOENT', path);
    return node;
  }

  #fileOf(file: number): { readonly node: FileNode; readonly path: string } {
    const found = this.#open.get(file);
    if (found === undefined) throw failure('EBADF', String(file));
    return found;
  }

  #failOn(on: NonNullable<FaultFileSystem['failure']>['on']): void {
    if (this.failure?.on === on) throw failure(this.failure.code, on);
  }
}

function contentAfter(node: FileNode, crash: Crash, random: () => number): Uint8Array {
  if (crash === 'process' || crash === 'data-only') return node.bytes;
  if (crash === 'nothing' || crash === 'names-only') return node.durable;
  const kept = crash === 'prefixes' ? Math.floor(random() * (node.pending.length + 1)) : node.pending.length;
  let bytes = node.durable;
  for (const [index, change] of node.pending.entries()) {
    const isLast = index === kept - 1;
    if (index >= kept || (crash === 'subsets' && random() < 0.4)) continue;
    if (change.kind === 'truncate') {
      bytes = bytes.slice(0, change.length);
      continue;
    }
    // Torn: a part of the last write, or of any where order is not kept. A gap before it reads as zeros.
    const isTorn = random() < (crash === 'subsets' || isLast ? 0.5 : 0);
    const part = isTorn ? change.bytes.subarray(0, Math.floor(random() * change.bytes.length)) : change.bytes;
    const isSized = isTorn && random() < 0.5;
    const end = change.offset + (isSized ? change.bytes.length : part.length);
    const longer = new Uint8Array(Math.max(bytes.length, end));
    longer.set(bytes);
    longer.set(part, change.offset);
    bytes = longer;
  }
  return bytes;
}

function entriesAfter(node: DirectoryNode, crash: Crash, random: () => number): ReadonlyMap<string, TreeNode> {
  if (crash === 'process' || crash === 'names-only') return node.entries;
  if (crash === 'nothing' || crash === 'data-only') return node.durable;
  const kept = crash === 'prefixes' ? Math.floor(random() * (node.pending.length + 1)) : node.pending.length;
  const entries = new Map(node.durable);
  for (const { name, node: child } of node.pending.slice(0, kept)) {
    if (crash === 'subsets' && random() < 0.5) continue;
    if (child === null) entries.delete(name);
    else entries.set(name, child);
  }
  return entries;
}

function directoryNode(): DirectoryNode {
  return { kind: 'directory', entries: new Map(), durable: new Map(), pending: [] };
}

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code, syscall: 'fault', path });
}
