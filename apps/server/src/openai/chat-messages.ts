import type { ChatMessage } from '@kvasir/domain';
import type { RequestMessage } from './request-schemas.ts';

/**
 * Messages as chat templates expect them: text parts joined by a newline, `developer` as `system`, the arguments of
 * earlier tool calls as values where they are JSON. Absent fields stay absent: templates test for them.
 */
export function toTemplateMessages(messages: readonly RequestMessage[]): ChatMessage[] {
  return messages.map(toTemplateMessage);
}

function toTemplateMessage(message: RequestMessage): ChatMessage {
  const fields: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(message)) {
    if (value !== undefined && value !== null && field !== 'content') fields[field] = value;
  }
  if (message.role === 'assistant' && message.tool_calls) {
    fields['tool_calls'] = message.tool_calls.map((call) => ({
      ...call,
      function: { ...call.function, arguments: parseArguments(call.function.arguments) },
    }));
  }
  const role = message.role === 'developer' ? 'system' : message.role;
  return { ...fields, role, content: joinText(message.content) };
}

type Content = RequestMessage['content'];

function joinText(content: Content): string | null {
  if (content === undefined || content === null || typeof content === 'string') return content ?? null;
  return content.map((part) => (part.type === 'text' ? part.text : part.refusal)).join('\n');
}

/** Arguments that are no JSON reach the template as the text they are. */
function parseArguments(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) return text;
    throw error;
  }
}
