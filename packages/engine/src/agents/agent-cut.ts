import { type AgentCut, type AgentManifest, type AgentTurn, KvasirError } from '@kvasir/domain';

/** Tokens a cut leaves. @throws KvasirError `invalid-argument` beyond the agent's tokens or turns */
export function tokensOfCut(manifest: AgentManifest, cut: AgentCut): number {
  const [what, value, most] =
    'turns' in cut ? ['turns', cut.turns, manifest.turns.length] : ['tokens', cut.tokens, manifest.tokenIds.length];
  if (!Number.isSafeInteger(value) || value < 0 || value > most) {
    throw new KvasirError(
      'invalid-argument',
      `${what}: expected an integer from 0 to the agent's ${most}, found ${value}`,
      {
        facts: { param: what },
      },
    );
  }
  if ('tokens' in cut) return value;
  return value === 0 ? 0 : (manifest.turns[value - 1] as AgentTurn).endTokens;
}

export type ManifestPart = Pick<AgentManifest, 'tokenIds' | 'turns' | 'blocks'>;

/** What an agent that begins with the first `numTokens` of another has: turns and blocks that lie before the cut whole, and the turn it goes through, marked. */
export function leadingPart(manifest: AgentManifest, numTokens: number): ManifestPart {
  const turns: AgentTurn[] = [];
  for (const turn of manifest.turns) {
    const start = turns.at(-1)?.endTokens ?? 0;
    if (turn.endTokens <= numTokens) turns.push(turn);
    else {
      if (numTokens > start) turns.push({ ...turn, endTokens: numTokens, isCut: true });
      break;
    }
  }
  return {
    tokenIds: manifest.tokenIds.slice(0, numTokens),
    turns,
    blocks: manifest.blocks.map((references) =>
      references.filter((reference) => reference.startToken + reference.numTokens <= numTokens),
    ),
  };
}

/** Tokens both begin with. */
export function commonPrefix(first: Int32Array, second: Int32Array): number {
  const shorter = Math.min(first.length, second.length);
  let length = 0;
  while (length < shorter && first[length] === second[length]) length += 1;
  return length;
}
