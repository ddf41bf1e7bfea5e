// `node ../../tools/bundle.mjs <entry>...` in a package's folder, after the compiler: puts each entry of src/ with
// everything it imports into one file of dist/. A process or thread that begins there reads one file and not hundreds.
import { build } from 'esbuild';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const packageDirectory = process.cwd();
const dist = path.join(packageDirectory, 'dist');
const packages = path.resolve(import.meta.dirname, '../packages');

for (const entry of process.argv.slice(2)) await bundle(entry);

async function bundle(entry) {
  const outfile = path.join(dist, entry.replace(/\.ts$/, '.js'));
  const { metafile } = await build({
    entryPoints: [path.join(packageDirectory, 'src', entry)],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    // Errors show where they come from: names and lines stay as they are written.
    minify: false,
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
    // Modules in CommonJS ask for Node's own by require().
    banner: {
      js: "import { createRequire as createBundleRequire } from 'node:module';\nconst require = createBundleRequire(import.meta.url);",
    },
    plugins: [keepModuleUrls(path.dirname(outfile))],
  });
  // It maps the file that the compiler wrote.
  rmSync(`${outfile}.map`, { force: true });
  const licenses = licensesOf(Object.keys(metafile.inputs));
  if (licenses.length > 0)
    writeFileSync(outfile.replace(/\.js$/, '.licenses.txt'), licenses.join(`\n${'-'.repeat(80)}\n`));
}

/** A module that looks for files beside it gets the URL it has outside the bundle. */
function keepModuleUrls(outputDirectory) {
  const own = `${path.join(packageDirectory, 'src')}${path.sep}`;
  const others = `${packages}${path.sep}`;
  return {
    name: 'keep-module-urls',
    setup({ onLoad }) {
      onLoad({ filter: /\.(ts|js)$/ }, ({ path: file }) => {
        if (file.includes('node_modules') || !(file.startsWith(own) || file.startsWith(others))) return undefined;
        const source = readFileSync(file, 'utf8');
        if (!source.includes('import.meta.url')) return undefined;
        const url = file.startsWith(own)
          ? relativeUrl(outputDirectory, path.join(dist, file.slice(own.length)), 'import.meta.url')
          : urlInPackage(file.slice(others.length));
        return { contents: source.replaceAll('import.meta.url', url), loader: file.endsWith('.ts') ? 'ts' : 'js' };
      });
    },
  };
}

function relativeUrl(from, file, base) {
  const relative = path.posix.join('.', path.relative(from, file).split(path.sep).join('/')).replace(/\.ts$/, '.js');
  return `new URL(${JSON.stringify(`./${relative}`)}, ${base}).href`;
}

/** Packages lie beside each other in a checkout and wherever npm puts them in an installation. */
function urlInPackage(file) {
  const [folder, ...inside] = file.split(path.sep);
  const { name } = JSON.parse(readFileSync(path.join(packages, folder, 'package.json'), 'utf8'));
  const relative = path.posix.relative('dist', inside.join('/'));
  return `new URL(${JSON.stringify(`./${relative}`)}, import.meta.resolve(${JSON.stringify(name)})).href`;
}

/** Licenses ask to travel with the code: one text for every package of others in the bundle. */
function licensesOf(inputs) {
  const folders = new Set(
    inputs
      .map((file) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1])
      .filter((folder) => folder !== undefined),
  );
  return [...folders].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    return `${name} ${version}: ${license}\n\n${file === undefined ? '' : readFileSync(path.join(folder, file), 'utf8').trim()}\n`;
  });
}
