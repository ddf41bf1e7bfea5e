import { KvasirError } from '@kvasir/domain';
import type { CancellationSignal, ChatMessage } from '@kvasir/domain';
import type { ServedModel } from './served-model.ts';

/**
 * Renders a conversation with the model's template and encodes it. Both run off this thread for anything long.
 * @throws KvasirError `template-failed`, `deadline-exceeded`, `request-too-large`, `aborted`
 */
export async function encodeConversation(
  model: ServedModel,
  messages: readonly ChatMessage[],
  variables: Readonly<Record<string, unknown>>,
  signal: CancellationSignal,
): Promise<Int32Array> {
  if (model.template === null) {
    throw new KvasirError(
      'template-failed',
      `chat: expected a model with a chat template, found none in ${model.name}; use /v1/completions`,
    );
  }
  const segments = await model.template.render({ messages }, { addGenerationPrompt: true, variables, signal });
  return model.tokenizer.encodeSegments(segments, { addBosEos: true, signal });
}

/** Encodes a raw prompt. It is the caller's whole input to the model, so special tokens written in it are meant. */
export async function encodeText(model: ServedModel, text: string, signal: CancellationSignal): Promise<Int32Array> {
  return model.tokenizer.encode(text, { special: true, addBosEos: true, signal });
}
