export { describeModelRunner } from './model-runner.contract.ts';
export type { ModelRunnerHarness } from './model-runner.contract.ts';
