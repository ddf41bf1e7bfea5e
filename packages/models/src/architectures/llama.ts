import type { ModelDescriptor } from '@kvasir/domain';
import type { ModelFile } from '../model-file.ts';
import { namedIn, type Architecture } from './architecture.ts';
import { buildDecoder } from './decoder.ts';
import { readGgufParameters, readGgufRope } from './gguf-parameters.ts';
import { areEmbeddingsTied, huggingFaceRope, readHuggingFaceParameters, readerOf } from './huggingface-parameters.ts';
import { GGUF_NAMES, HUGGING_FACE_NAMES } from './tensor-names.ts';

/**
 * Llama 1 to 3.x and what is built like it, Mistral without a window among them. GGUF files of this family have the rows
 * of Q and K permuted so that rotated pairs lie side by side; checkpoints keep the halves apart.
 */
export const llama: Architecture = {
  ...namedIn({ gguf: ['llama'], huggingFace: ['LlamaForCausalLM', 'MistralForCausalLM'] }),
  build,
};

function build(file: ModelFile): ModelDescriptor {
  const shared = { architecture: 'llama', activation: 'silu', headNorm: 'absent' } as const;
  if (file.format === 'gguf') {
    const parameters = readGgufParameters(file);
    return buildDecoder(file, {
      ...shared,
      parameters,
      rope: readGgufRope(file, parameters, 'interleaved'),
      names: GGUF_NAMES,
      tiedEmbeddings: !file.tensors.some(({ name }) => name === GGUF_NAMES.model.output),
      queryKeyValueBias: 'optional',
      attentionOutputBias: 'optional',
      feedForwardBias: 'optional',
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
    feedForwardBias: reader.flag('mlp_bias', false) ? 'required' : 'absent',
  });
}
