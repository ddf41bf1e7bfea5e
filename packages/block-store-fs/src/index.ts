export { openColdTier } from './open-cold-tier.ts';
export type { ColdTier, ColdTierOptions } from './open-cold-tier.ts';
