// `npm start`: installs, builds and serves the bundled model on the CPU. Arguments after `--` go to `kvasir serve`.
import { ensureReady } from './lib/toolchain.mjs';

ensureReady({ quiet: false });
process.argv.splice(2, 0, 'serve');
await import('./kvasir.mjs');
