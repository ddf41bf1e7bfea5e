import type { ModelDescriptor } from '@kvasir/domain';
import type { ModelFile } from '../model-file.ts';
import { namedIn, type Architecture } from './architecture.ts';
import { buildDecoder } from './decoder.ts';
import { readGgufParameters, readGgufRope } from './gguf-parameters.ts';
import { areEmbeddingsTied, huggingFaceRope, readHuggingFaceParameters, readerOf } from './huggingface-parameters.ts';
import { GGUF_NAMES, HUGGING_FACE_NAMES } from './tensor-names.ts';

/** Qwen3 (dense): an RMSNorm on each query and key head before RoPE, and a head width of its own. */
export const qwen3: Architecture = {
  ...namedIn({ gguf: ['qwen3'], huggingFace: ['Qwen3ForCausalLM'] }),
  build,
};

function build(file: ModelFile): ModelDescriptor {
  const shared = {
    architecture: 'qwen3',
    activation: 'silu',
    headNorm: 'required',
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
      queryKeyValueBias: 'optional',
      attentionOutputBias: 'optional',
    });
  }
  const parameters = readHuggingFaceParameters(file);
  const reader = readerOf(file);
  const attentionBias = reader.flag('attention_bias', false) ? 'required' : 'absent';
  return buildDecoder(file, {
    ...shared,
    parameters,
    rope: huggingFaceRope(file, parameters),
    names: HUGGING_FACE_NAMES,
    tiedEmbeddings: areEmbeddingsTied(file),
    queryKeyValueBias: attentionBias,
    attentionOutputBias: attentionBias,
  });
}
