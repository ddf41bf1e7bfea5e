import { KvasirError } from '@kvasir/domain';
import type { AgentManifest, CancellationSignal, ChatMessage } from '@kvasir/domain';
import type { EncodedPrompt } from './prompt-encoder.ts';
import type { ServedModel } from './served-model.ts';

/** For whom a prompt is encoded. */
export interface PromptOwner {
  readonly tenant: string;
  readonly agent: AgentManifest | null;
}

/**
 * Renders a conversation with the model's template and encodes it. Both run off this thread for anything long.
 * @throws KvasirError `template-failed`, `deadline-exceeded`, `request-too-large`, `aborted`
 */
export async function encodeConversation(
  model: ServedModel,
  messages: readonly ChatMessage[],
  variables: Readonly<Record<string, unknown>>,
  owner: PromptOwner,
  signal: CancellationSignal,
): Promise<EncodedPrompt> {
  if (model.template === null) {
    throw new KvasirError(
      'template-failed',
      `chat: expected a model with a chat template, found none in ${model.name}; use /v1/completions`,
    );
  }
  const segments = await model.template.render({ messages }, { addGenerationPrompt: true, variables, signal });
  return model.prompts.encode(segments, { ...owner, bosEos: 'missing', signal });
}

/** Encodes a raw prompt. It is the caller's whole input to the model, so special tokens written in it are meant. */
export async function encodeText(
  model: ServedModel,
  text: string,
  owner: PromptOwner,
  signal: CancellationSignal,
): Promise<EncodedPrompt> {
  return model.prompts.encode([{ text, special: true }], { ...owner, bosEos: 'always', signal });
}
