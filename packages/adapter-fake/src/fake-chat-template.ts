import {
  type ChatTemplate,
  type Conversation,
  KvasirError,
  type PromptSegment,
  type RenderOptions,
} from '@kvasir/domain';

const ROLES = ['user', 'assistant', 'system'];

/** `<|role|>content<eos>` for each message. Roles of its own are special text, contents never are. */
export class FakeChatTemplate implements ChatTemplate {
  async render(conversation: Conversation, options: RenderOptions): Promise<readonly PromptSegment[]> {
    if (options.signal?.aborted === true) throw new KvasirError('aborted', 'rendering was aborted');
    const segments: PromptSegment[] = [];
    for (const { role, content } of conversation.messages) {
      if (!ROLES.includes(role)) {
        throw new KvasirError('template-failed', `role: expected ${ROLES.join(', ')}, found ${role}`);
      }
      segments.push({ text: `<|${role}|>`, special: true });
      segments.push({ text: typeof content === 'string' ? content : JSON.stringify(content), special: false });
      segments.push({ text: '<eos>', special: true });
    }
    if (options.addGenerationPrompt) segments.push({ text: '<|assistant|>', special: true });
    return segments;
  }
}
