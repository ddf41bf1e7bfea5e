import {
  type AgentArchive,
  type AgentImport,
  type AgentManifest,
  type AgentMemory,
  type AgentName,
  type AgentSummary,
  type CacheIdentity,
  type CancellationSignal,
  importedNumerics,
  KvasirError,
} from '@kvasir/domain';
import { ByteStream } from './byte-stream.ts';
import type { Checksum } from './portable-format.ts';
import { PortableReader } from './portable-reader.ts';

export interface ImportParts {
  readonly archive: AgentArchive;
  readonly memory: AgentMemory;
  readonly now: () => number;
  readonly checksum: Checksum;
  readonly vocabularySize: number;
}

export interface ImportOptions {
  readonly acceptNumerics: boolean;
  readonly signal: CancellationSignal | undefined;
}

/**
 * Makes an agent of an exported stream. Header and tokens are verified before it exists, each block before it is taken;
 * after a failure it is deleted again. A crash midway leaves an agent with all of its tokens and some of its KV.
 * @throws KvasirError `file-corrupt`, `file-foreign`, `file-truncated`, `agent-other-model`, `aborted`, as `archive.create`
 */
export async function importAgent(
  name: AgentName,
  source: AsyncIterable<Uint8Array>,
  parts: ImportParts,
  options: ImportOptions,
): Promise<AgentImport> {
  const stream = new ByteStream(source, options.signal);
  try {
    const reader = await PortableReader.open(stream, parts.checksum, parts);
    const { memory, archive, now } = parts;
    const judged = judge(reader.agent.identity, memory.identity, options.acceptNumerics);
    const { turns } = reader.agent;
    const { tokenIds } = reader;
    const { tenant } = name;
    const created = await archive.create({
      tenant,
      name: name.name,
      identity: judged.identity,
      atMs: now(),
      tokenIds,
      turns,
    });
    return await undoOnFailure(created, parts, async () => {
      memory.adopt(await archive.read(created.agentId));
      const taken = await takeBlocks(reader, created, memory, judged.refusal);
      memory.follow({ agentId: created.agentId, tenant }, tokenIds);
      return { agent: created, ...taken };
    });
  } finally {
    await stream.close();
  }
}

interface Judgement {
  readonly identity: CacheIdentity;
  /** Why no block is taken; null: they are. */
  readonly refusal: string | null;
}

/**
 * Whose blocks they are. Blocks that are taken although other numerics made them mark the agent: its identity names both.
 * @throws KvasirError `agent-other-model`
 */
function judge(found: CacheIdentity, own: CacheIdentity, acceptNumerics: boolean): Judgement {
  if (found.modelFingerprint !== own.modelFingerprint) {
    throw new KvasirError(
      'agent-other-model',
      `import: expected an agent of the loaded model (${own.modelFingerprint}), found one of another (${found.modelFingerprint})`,
      { facts: { expected: own.modelFingerprint, found: found.modelFingerprint } },
    );
  }
  for (const field of ['kvDType', 'layoutVersion'] as const) {
    if (found[field] === own[field]) continue;
    return { identity: own, refusal: `${field}: expected ${own[field]}, found ${found[field]}` };
  }
  if (found.numericsId === own.numericsId) return { identity: own, refusal: null };
  if (!acceptNumerics) {
    return {
      identity: own,
      refusal: `numericsId: expected ${own.numericsId}, found ${found.numericsId}; accept other numerics to take them`,
    };
  }
  return { identity: { ...own, numericsId: importedNumerics(own.numericsId, found.numericsId) }, refusal: null };
}

async function takeBlocks(
  reader: PortableReader,
  agent: AgentSummary,
  memory: AgentMemory,
  refusal: string | null,
): Promise<Pick<AgentImport, 'blocks' | 'refused'>> {
  const refused = new Map<string, number>();
  let taken = 0;
  for await (const block of reader.blocks()) {
    let reason = refusal;
    if (block === null) reason = 'absent: gone at the exporter before it was its turn';
    else if (reason === null && !(await memory.writeBlock(agent, block))) reason = 'the cache did not take it';
    if (reason === null) taken += 1;
    else refused.set(reason, (refused.get(reason) ?? 0) + 1);
  }
  return { blocks: taken, refused: [...refused].map(([reason, blocks]) => ({ reason, blocks })) };
}

async function undoOnFailure<Value>(
  { agentId }: Pick<AgentManifest, 'agentId'>,
  { archive, memory }: ImportParts,
  work: () => Promise<Value>,
): Promise<Value> {
  try {
    return await work();
  } catch (error) {
    await memory.quiesce(agentId);
    await archive.delete(agentId);
    memory.forget(agentId);
    throw error;
  }
}
