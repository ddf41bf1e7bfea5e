import type { CancellationSignal } from './cancellation-signal.ts';
/** Renders a conversation into the text a model was trained on. */
export interface ChatTemplate {
  /**
   * Runs under a deadline and a size limit, off the caller's thread.
   * @returns the prompt's text in segments: `special` segments may contain special tokens, others never become them
   * @throws KvasirError `template-failed` with the template's own message, `deadline-exceeded`, `request-too-large`
   */
  render(conversation: Conversation, options: RenderOptions): Promise<readonly PromptSegment[]>;
}

export interface Conversation {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly unknown[];
}

/** An OpenAI-shaped message; a template sees exactly these fields. */
export interface ChatMessage {
  readonly role: string;
  readonly content: unknown;
  readonly [field: string]: unknown;
}

export interface RenderOptions {
  readonly addGenerationPrompt: boolean;
  /** Extra variables a template may read (`enable_thinking`). */
  readonly variables?: Readonly<Record<string, unknown>>;
  readonly signal?: CancellationSignal;
}

export interface PromptSegment {
  readonly text: string;
  readonly special: boolean;
}
