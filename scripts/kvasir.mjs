// `npm run kvasir -- <command>`: the command line from a checkout. Paths are relative to where the user typed it.
import { spawn } from 'node:child_process';
import path from 'node:path';
import { ensureReady, root } from './lib/toolchain.mjs';

ensureReady({ quiet: true });
runKvasir(process.argv.slice(2));

function runKvasir(args) {
  const child = spawn(process.execPath, [path.join(root, 'apps/server/dist/main.js'), ...args], {
    cwd: process.env.INIT_CWD ?? process.cwd(),
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 1));
}
