import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { KvasirError } from '@kvasir/domain';
import { downloadModel, parseHubReference, type DownloadProgress } from '@kvasir/models';

export interface ModelWishes {
  /** null: the bundled model. */
  readonly model: string | null;
  readonly cacheDir: string;
  readonly hfEndpoint: string;
  readonly hfToken: string | null;
}

/**
 * Where the model lies on disk, downloaded first where it is named `hf:…`.
 * @throws KvasirError `file-not-found` when none is named and none is bundled; what `downloadModel` throws
 */
export async function resolveModel(
  wishes: ModelWishes,
  onProgress: (progress: DownloadProgress) => void,
  signal?: AbortSignal,
): Promise<string> {
  if (wishes.model === null) return bundledModel();
  const reference = parseHubReference(wishes.model);
  if (reference === null) return path.resolve(wishes.model);
  const downloaded = await downloadModel(reference, {
    cacheDirectory: wishes.cacheDir,
    endpoint: wishes.hfEndpoint,
    onProgress,
    ...(wishes.hfToken === null ? {} : { token: wishes.hfToken }),
    ...(signal === undefined ? {} : { signal }),
  });
  return downloaded.path;
}

/** From src/loading and dist/loading alike: the repository's models folder, then the package's own. */
const BUNDLED_FOLDERS = ['../../../../models', '../../models'].map((folder) =>
  path.resolve(path.dirname(fileURLToPath(import.meta.url)), folder),
);

/** The smallest of the bundled files: variants of the same model in larger formats may lie beside it. */
function bundledModel(): string {
  for (const folder of BUNDLED_FOLDERS) {
    const files = listModels(folder).map((file) => ({ file, size: statSync(file).size }));
    const [smallest] = files.sort((a, b) => a.size - b.size);
    if (smallest !== undefined) return smallest.file;
  }
  throw new KvasirError(
    'file-not-found',
    `model: expected --model, KVASIR_MODEL or a bundled .gguf, found none in ${BUNDLED_FOLDERS.join(' or ')}; name one with --model path.gguf or --model hf:org/repo:file`,
  );
}

function listModels(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith('.gguf'))
      .map((name) => path.join(folder, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** What requests call a model: its file's name without the ending, or its folder's. */
export function modelName(file: string): string {
  return path
    .basename(file)
    .replace(/\.gguf$/i, '')
    .replace(/-00001-of-\d{5}$/, '');
}
