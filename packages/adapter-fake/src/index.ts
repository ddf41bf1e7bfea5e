export { FakeChatTemplate } from './fake-chat-template.ts';
export { FakeClock } from './fake-clock.ts';
export { FakeModelLoader } from './fake-model-loader.ts';
export { FakeModelRunner } from './fake-model-runner.ts';
export type { FakeRunnerOptions } from './fake-runner-options.ts';
export { expectedOutputs } from './expected-outputs.ts';
export { FakeTokenizer } from './fake-tokenizer.ts';
export { RecordingNarrator } from './recording-narrator.ts';
