// Published reference models: the engine's logits against recorded ones, and their greedy continuations.
import { describePublished } from '../../native-runner/test/conformance/published.suite.ts';
import { BACKEND } from './support/load.ts';

describePublished(BACKEND);
