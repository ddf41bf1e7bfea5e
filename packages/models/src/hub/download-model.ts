import type { HubReference } from './hub-reference.ts';

export interface DownloadOptions {
  /** Where downloaded models are kept; created when absent. */
  readonly cacheDirectory: string;
  /** The Hub or a mirror of it; `https://huggingface.co` when absent. */
  readonly endpoint?: string;
  /** Access token; sent to the endpoint's host alone, never to where it redirects. */
  readonly token?: string;
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
}

/** Over all files of the model. Starts above 0 when a download is resumed. */
export interface DownloadProgress {
  /** The file being downloaded, its path inside the repository. */
  readonly file: string;
  readonly fileIndex: number;
  readonly numFiles: number;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface DownloadedModel {
  /** What to give to `openModel`, absolute. */
  readonly path: string;
  /** All files, absolute. */
  readonly files: readonly string[];
  /** The commit the files belong to. */
  readonly commit: string;
  /** Bytes that came over the network this time; 0 when everything was in the cache. */
  readonly bytesDownloaded: number;
  /** The endpoint could not be reached and the cached copy of this revision is used. */
  readonly isOffline: boolean;
}

/**
 * Downloads a model file from the Hugging Face Hub into the cache, every shard of a split GGUF; a file already there is
 * not downloaded again.
 *
 * An interrupted download leaves `<file>.incomplete` and the next call goes on from there. A file appears under its name
 * only when its size and SHA-256 (git blob SHA-1 for files outside LFS) are what the Hub announced.
 * @throws KvasirError `download-failed` (facts: url, status), `unauthorized`, `model-not-found`, `file-corrupt` (size or
 *   hash differ; the bad file is deleted), `file-unreadable` (the cache cannot be written), `aborted`
 */
export async function downloadModel(reference: HubReference, options: DownloadOptions): Promise<DownloadedModel> {
  throw new Error(`not built yet: ${reference.repository} ${options.cacheDirectory}`);
}
