import { describeOracle } from '../../native-runner/test/conformance/oracle.suite.ts';
import { BACKEND } from './support/load.ts';

describeOracle(BACKEND);
