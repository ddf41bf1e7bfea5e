export { GgufStringList } from './gguf/gguf-value.ts';
export type { GgufArray, GgufMetadata, GgufNumberArray, GgufValue } from './gguf/gguf-value.ts';
export type {
  GenerationConfig,
  GgufModelFile,
  HuggingFaceModelFile,
  ModelFile,
  StoredTensor,
  TokenizerSource,
} from './model-file.ts';
export { openModel } from './open-model.ts';
export { STORED_LAYOUTS, isTensorDType } from './stored-dtype.ts';
export type { UnsupportedDType } from './stored-dtype.ts';
export { parseHubReference } from './hub/hub-reference.ts';
export type { HubReference } from './hub/hub-reference.ts';
export { downloadModel } from './hub/download-model.ts';
export type { DownloadOptions, DownloadProgress, DownloadedModel } from './hub/download-model.ts';
export { makeDirectories } from './make-directories.ts';
