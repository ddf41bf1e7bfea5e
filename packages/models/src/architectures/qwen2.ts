import type { ModelDescriptor } from '@kvasir/domain';
import type { ModelFile } from '../model-file.ts';
import { namedIn, type Architecture } from './architecture.ts';
import { buildDecoder } from './decoder.ts';
import { readGgufParameters, readGgufRope } from './gguf-parameters.ts';
import { areEmbeddingsTied, huggingFaceRope, readHuggingFaceParameters } from './huggingface-parameters.ts';
import { GGUF_NAMES, HUGGING_FACE_NAMES } from './tensor-names.ts';

/** Qwen2 and Qwen2.5: Llama's layers with biases on Q, K and V. */
export const qwen2: Architecture = {
  ...namedIn({ gguf: ['qwen2'], huggingFace: ['Qwen2ForCausalLM'] }),
  build,
};

function build(file: ModelFile): ModelDescriptor {
  const shared = {
    architecture: 'qwen2',
    activation: 'silu',
    headNorm: 'absent',
    queryKeyValueBias: 'required',
    attentionOutputBias: 'absent',
    feedForwardBias: 'absent',
  } as const;
  if (file.format === 'gguf') {
    const parameters = readGgufParameters(file);
    return buildDecoder(file, {
      ...shared,
      parameters,
      rope: readGgufRope(file, parameters, 'halves'),
      names: GGUF_NAMES,
      tiedEmbeddings: !file.tensors.some(({ name }) => name === GGUF_NAMES.model.output),
    });
  }
  const parameters = readHuggingFaceParameters(file);
  return buildDecoder(file, {
    ...shared,
    parameters,
    rope: huggingFaceRope(file, parameters),
    names: HUGGING_FACE_NAMES,
    tiedEmbeddings: areEmbeddingsTied(file),
  });
}
