// `copy` puts the repository's bundled model into the package before it is packed, `remove` takes it out again: an
// installed server then answers without a download, and a checkout holds the model once.
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const packageDirectory = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const source = path.resolve(packageDirectory, '../../models');
const target = path.join(packageDirectory, 'models');
/** A package is downloaded by everyone who depends on it; a larger model stays in the repository. */
const MAX_BYTES = 20 * 2 ** 20;

const [action] = process.argv.slice(2);
if (action === 'copy') copyModel();
else if (action === 'remove') rmSync(target, { recursive: true, force: true });
else {
  console.error(`expected copy or remove, found ${action ?? 'nothing'}`);
  process.exit(2);
}

function copyModel() {
  if (!existsSync(source)) return;
  const models = readdirSync(source)
    .filter((name) => name.endsWith('.gguf'))
    .map((name) => ({ name, bytes: statSync(path.join(source, name)).size }))
    .sort((a, b) => a.bytes - b.bytes);
  const [smallest] = models;
  if (smallest === undefined || smallest.bytes > MAX_BYTES) return;
  mkdirSync(target, { recursive: true });
  copyFileSync(path.join(source, smallest.name), path.join(target, smallest.name));
}
