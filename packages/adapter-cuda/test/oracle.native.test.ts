import { describeOracle } from '../../native-runner/test/conformance/oracle.suite.ts';
import { describeQuantizedKv } from '../../native-runner/test/conformance/quantized-kv.suite.ts';
import { BACKEND } from './support/load.ts';

describeOracle(BACKEND);
describeQuantizedKv(BACKEND);
