import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { applyAgentEntry, MAX_RECENT_USES, summarizeAgent, type AgentManifest } from './agent-manifest.ts';

const EMPTY: AgentManifest = {
  agentId: '0'.repeat(32),
  tenant: 't',
  name: 'n',
  identity: { modelFingerprint: 'm', kvDType: 'f16', layoutVersion: '1', numericsId: 'x' },
  createdAtMs: 0,
  lastUsedAtMs: 0,
  tokenIds: new Int32Array(),
  turns: [],
  pinnedTokens: 0,
  blocks: [],
  formerBlocks: [],
  uses: { count: 0, promptTokens: 0, cachedTokens: 0, recent: [] },
};

function hashOf(seed: number): string {
  return seed.toString(16).padStart(64, '0');
}

const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('turn' as const), count: fc.nat(40) }),
    fc.record({ kind: fc.constant('rewind' as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
    fc.record({ kind: fc.constant('save' as const), seed: fc.nat(3) }),
  ),
  { maxLength: 30 },
);

describe('applyAgentEntry', () => {
  it('keeps the tokens a list would hold, turns that cover them, and every block that ever held one', () => {
    fc.assert(
      fc.property(steps, (plan) => {
        let manifest = EMPTY;
        let tokens: number[] = [];
        let next = 1;
        const everSaved = new Set<string>();
        for (const step of plan) {
          if (step.kind === 'turn') {
            const tokenIds = Int32Array.from({ length: step.count }, () => next++);
            const entry = { kind: 'turn', startTokens: tokens.length, tokenIds, segments: '', atMs: next } as const;
            manifest = applyAgentEntry(manifest, entry);
            tokens = [...tokens, ...tokenIds];
          } else if (step.kind === 'rewind') {
            const numTokens = Math.floor(step.part * tokens.length);
            manifest = applyAgentEntry(manifest, { kind: 'rewind', numTokens, atMs: next });
            tokens = tokens.slice(0, numTokens);
          } else {
            // A block's hash stands for the tokens in it and before it.
            const blocks = Array.from({ length: Math.floor(tokens.length / 8) }, (_, index) => ({
              startToken: index * 8,
              numTokens: 8,
              hash: hashOf((tokens[index * 8 + 7] ?? 0) * 4 + step.seed),
            }));
            for (const { hash } of blocks) everSaved.add(hash);
            manifest = applyAgentEntry(manifest, { kind: 'blocks', group: 0, keep: 0, blocks });
          }
          const current = (manifest.blocks[0] ?? []).map(({ hash }) => hash);
          const former = manifest.formerBlocks.map(({ hash }) => hash);
          expect([...manifest.tokenIds]).toEqual(tokens);
          expect(manifest.turns.at(-1)?.endTokens ?? 0).toBe(tokens.length);
          expect([...current, ...former].sort()).toEqual([...everSaved].sort());
          expect((manifest.blocks[0] ?? []).every((block) => block.startToken + block.numTokens <= tokens.length)).toBe(
            true,
          );
          expect(summarizeAgent(manifest)).toMatchObject({ numTokens: tokens.length, numTurns: manifest.turns.length });
        }
      }),
    );
  });

  it('replaces the end of a list of blocks and leaves the manifest it was given as it was', () => {
    const tokenIds = Int32Array.from({ length: 32 });
    const before = applyAgentEntry(EMPTY, { kind: 'turn', startTokens: 0, tokenIds, segments: '', atMs: 1 });
    const at = (index: number, seed: number) => ({ startToken: index * 8, numTokens: 8, hash: hashOf(seed) });
    const first = applyAgentEntry(before, { kind: 'blocks', group: 2, keep: 0, blocks: [at(0, 1), at(1, 2)] });
    const second = applyAgentEntry(first, { kind: 'blocks', group: 2, keep: 1, blocks: [at(2, 3)] });
    expect(second.blocks).toEqual([[], [], [at(0, 1), at(2, 3)]]);
    expect(second.formerBlocks).toEqual([{ hash: hashOf(2), group: 2 }]);
    expect([before.blocks, first.formerBlocks]).toEqual([[], []]);
    const third = applyAgentEntry(second, { kind: 'blocks', group: 2, keep: 1, blocks: [at(1, 2)] });
    expect(third.formerBlocks).toEqual([{ hash: hashOf(3), group: 2 }]);
  });

  it('remembers the latest uses and counts all', () => {
    let manifest = EMPTY;
    for (let atMs = 1; atMs <= MAX_RECENT_USES + 5; atMs++) {
      manifest = applyAgentEntry(manifest, { kind: 'use', atMs, promptTokens: 10, cachedTokens: 4 });
    }
    expect(manifest.uses).toMatchObject({ count: 37, promptTokens: 370, cachedTokens: 148 });
    expect(manifest.uses.recent.map(({ atMs }) => atMs)).toEqual(
      Array.from({ length: MAX_RECENT_USES }, (_, index) => index + 6),
    );
  });

  it('refuses a pin, a group or a rewind that is none', () => {
    for (const entry of [
      { kind: 'pin', pinnedTokens: -1, atMs: 1 },
      { kind: 'rewind', numTokens: 1, atMs: 1 },
      { kind: 'blocks', group: 64, keep: 0, blocks: [] },
      { kind: 'blocks', group: 0, keep: 0.5, blocks: [] },
    ] as const) {
      expect(() => applyAgentEntry(EMPTY, entry)).toThrow(/expected an integer from 0 to/);
    }
  });
});
