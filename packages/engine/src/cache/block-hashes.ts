import type { CacheIdentity } from '@kvasir/domain';
import type { PrefixNode } from './prefix-node.ts';

/** SHA-256 of a text's UTF-8 bytes and what follows them, as 64 lower-case hex digits. */
export type Sha256Hex = (text: string, bytes: Uint8Array) => string;

/**
 * The chain hashes of blocks: over format, identity, tenant, predecessor and the token ids (int32, little-endian). A
 * block has the same key on every machine, and another one as soon as anything its bits depend on differs.
 */
export class BlockHashes {
  readonly #sha256: Sha256Hex;
  readonly #identity: string;

  constructor(sha256: Sha256Hex, identity: CacheIdentity) {
    this.#sha256 = sha256;
    const { modelFingerprint, kvDType, layoutVersion, numericsId } = identity;
    this.#identity = JSON.stringify(['kvasir-block-1', modelFingerprint, kvDType, layoutVersion, numericsId]);
  }

  /** Cost: one hash of about 1 KB for each node of the chain that has none yet. */
  of(node: PrefixNode): string {
    if (node.hash !== null) return node.hash;
    const chain: PrefixNode[] = [];
    for (let at: PrefixNode | null = node; at !== null && at.parent !== null && at.hash === null; at = at.parent) {
      chain.push(at);
    }
    for (const next of chain.reverse()) {
      next.hash = this.hash(next.tenant, this.predecessorOf(next), next.tokenIds);
    }
    return node.hash as unknown as string;
  }

  predecessorOf(node: PrefixNode): string | null {
    return node.parent === null || node.parent.parent === null ? null : this.of(node.parent);
  }

  hash(tenant: string, predecessor: string | null, tokenIds: Int32Array): string {
    const head = `${this.#identity}\n${JSON.stringify(tenant)}\n${predecessor ?? ''}\n`;
    const bytes = new Uint8Array(tokenIds.length * 4);
    const view = new DataView(bytes.buffer);
    for (const [index, id] of tokenIds.entries()) view.setInt32(index * 4, id, true);
    return this.#sha256(head, bytes);
  }
}
