import { join } from 'node:path';

/**
 * Where everything lies under one cache directory. File names are hashes, random ids and numbers: text from users never
 * becomes a path.
 *
 *     lock                               who has the directory open
 *     agents.index                       summaries and references of all agents
 *     agents/<2 digits>/<agent id>       one agent: manifest and journal
 *     blocks/<2 digits>/<hash>.<group>.safetensors
 *     blocks/usage.json                  counts, so that nobody has to count at opening
 *     agents/temporary, blocks/temporary files being written; emptied at opening
 *     quarantine                         damaged files, the latest few
 */
export class CacheLayout {
  readonly directory: string;
  readonly lock: string;
  readonly index: string;
  readonly agents: string;
  readonly agentsTemporary: string;
  readonly blocks: string;
  readonly blocksTemporary: string;
  readonly usage: string;
  readonly quarantine: string;

  constructor(directory: string) {
    this.directory = directory;
    this.lock = join(directory, 'lock');
    this.index = join(directory, 'agents.index');
    this.agents = join(directory, 'agents');
    this.agentsTemporary = join(this.agents, 'temporary');
    this.blocks = join(directory, 'blocks');
    this.blocksTemporary = join(this.blocks, 'temporary');
    this.usage = join(this.blocks, 'usage.json');
    this.quarantine = join(directory, 'quarantine');
  }

  agentFolder(agentId: string): string {
    return join(this.agents, agentId.slice(0, 2));
  }

  agentFile(agentId: string): string {
    return join(this.agentFolder(agentId), agentId);
  }

  blockFolder(hash: string): string {
    return join(this.blocks, hash.slice(0, 2));
  }

  blockFile(hash: string, group: number): string {
    return join(this.blockFolder(hash), `${hash}.${group}.safetensors`);
  }
}

/** The 256 names of folders that files are spread over. */
export const FOLDERS: readonly string[] = Array.from({ length: 256 }, (_, index) =>
  index.toString(16).padStart(2, '0'),
);

const BLOCK_FILE = /^([0-9a-f]{64})\.(0|[1-9][0-9]{0,4})\.safetensors$/;

/** The key a block file's name says it has; null for other files. */
export function keyOfBlockFile(name: string): { readonly hash: string; readonly group: number } | null {
  const [, hash, group] = BLOCK_FILE.exec(name) ?? [];
  return hash === undefined ? null : { hash, group: Number(group) };
}

export function isAgentId(name: string): boolean {
  return /^[0-9a-f]{32}$/.test(name);
}
