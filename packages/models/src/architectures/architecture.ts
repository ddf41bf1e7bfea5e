import type { ModelDescriptor } from '@kvasir/domain';
import type { ModelFile } from '../model-file.ts';

/** One family of models: recognises its files and turns them into data. Registered in registry.ts. */
export interface Architecture {
  /** What files call it, for the message that refuses another: `llama (GGUF)`, `LlamaForCausalLM`. */
  readonly accepts: readonly string[];
  matches(file: ModelFile): boolean;
  /** @throws KvasirError `unsupported-model`, `unsupported-format`, `file-corrupt` */
  build(file: ModelFile): ModelDescriptor;
}

/** `matches` and the list for messages, from the names a family has in each format. */
export function namedIn(names: { readonly gguf: readonly string[]; readonly huggingFace: readonly string[] }): {
  readonly accepts: readonly string[];
  matches(file: ModelFile): boolean;
} {
  return {
    accepts: [...names.gguf.map((name) => `${name} (GGUF)`), ...names.huggingFace],
    matches: ({ format, architecture }) => (format === 'gguf' ? names.gguf : names.huggingFace).includes(architecture),
  };
}
