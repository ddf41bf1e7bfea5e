import type { ChatTemplate } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';

export interface ChatTemplateHarness {
  /** A template that knows the roles user and assistant. */
  open(): Promise<ChatTemplate>;
}

/** What every ChatTemplate owes the server. */
export function describeChatTemplate(name: string, harness: ChatTemplateHarness): void {
  const messages = [
    { role: 'user', content: 'first question' },
    { role: 'assistant', content: 'first answer' },
    { role: 'user', content: 'second question' },
  ];

  describe(`${name} as a ChatTemplate`, () => {
    it('renders every message in order, and the same each time', async () => {
      const template = await harness.open();
      const segments = await template.render({ messages }, { addGenerationPrompt: false });
      const text = segments.map((segment) => segment.text).join('');
      const places = messages.map(({ content }) => text.indexOf(content));
      expect(places).toEqual([...places].sort((a, b) => a - b));
      expect(Math.min(...places)).toBeGreaterThanOrEqual(0);
      expect(await template.render({ messages }, { addGenerationPrompt: false })).toEqual(segments);
    });

    it('opens the answer only when asked to', async () => {
      const template = await harness.open();
      const textOf = async (addGenerationPrompt: boolean): Promise<string> =>
        (await template.render({ messages }, { addGenerationPrompt })).map((segment) => segment.text).join('');
      const closed = await textOf(false);
      const opened = await textOf(true);
      expect(opened.startsWith(closed)).toBe(true);
      expect(opened.length).toBeGreaterThan(closed.length);
    });

    it('stops when aborted', async () => {
      const template = await harness.open();
      const rendering = template.render({ messages }, { addGenerationPrompt: true, signal: AbortSignal.abort() });
      await expect(rendering).rejects.toMatchObject({ code: 'aborted' });
    });
  });
}
