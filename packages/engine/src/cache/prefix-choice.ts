import type { ReuseLimit } from '@kvasir/domain';
import type { PrefixNode } from './prefix-node.ts';
import type { PrefixMatch } from './prefix-trie.ts';
import type { RestorableBlock, RestorePlanner } from './restore-planner.ts';
import type { Tier } from './sequence-lease.ts';
import type { Tiers } from './tiers.ts';

/** How much of a match a sequence begins with. */
export interface ChosenPrefix {
  readonly match: PrefixMatch;
  /** Leading full nodes. */
  readonly numNodes: number;
  /** Whether the leading slots of the match's tail follow. */
  readonly usesTail: boolean;
  /** Why no more. */
  readonly cause: ReuseLimit;
}

/** As far as some tier has the KV, and as the planner finds worth restoring. */
export function choosePrefix(
  match: PrefixMatch,
  numTokens: number,
  tiers: Tiers,
  planner: RestorePlanner,
): ChosenPrefix {
  const firstUnknown = match.nodes.findIndex((node) => !tiers.hasKv(node));
  const numKnown = firstUnknown < 0 ? match.nodes.length : firstUnknown;
  const tail = firstUnknown < 0 && match.tail !== null && tiers.hasKv(match.tail) ? match.tail : null;
  const restorable = (node: PrefixNode, tokens: number): RestorableBlock => ({
    tier: tierOf(node, tiers),
    tokens,
    bytes: tiers.nodeBytes,
  });
  const blocks = match.nodes.slice(0, numKnown).map((node) => restorable(node, node.tokenIds.length));
  if (tail !== null) blocks.push(restorable(tail, match.tailTokens));
  const numChosen = planner.plan(blocks, numTokens);
  const numNodes = Math.min(numChosen, numKnown);
  const usesTail = numChosen > numKnown;
  const chosen = blocks.slice(0, numChosen).reduce((sum, { tokens }) => sum + tokens, 0);
  let cause: ReuseLimit = 'evicted';
  const missing = match.nodes[numNodes] ?? (usesTail ? null : match.tail);
  if (chosen >= numTokens) cause = 'complete';
  else if (numChosen < blocks.length) cause = 'recompute-faster';
  else if (chosen >= match.numTokens) cause = 'never-seen';
  else if (missing?.wasDamaged === true) cause = 'damaged';
  else if (missing?.hasOtherIdentity === true) cause = 'other-identity';
  return { match, numNodes, usesTail, cause };
}

export function tierOf(node: PrefixNode, tiers: Tiers): Tier {
  if (node.hot !== null) return 'hot';
  return tiers.isAboveCold(node) || node.loading !== null ? 'warm' : 'cold';
}
