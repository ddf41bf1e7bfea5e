import type { ChatTemplate } from '@kvasir/domain';

export interface ChatTemplateOptions {
  /** Used in place of the source's own template. */
  readonly template?: string;
  /** Which of several named templates; default `default`, and `tool_use` for conversations with tools where there is one. */
  readonly name?: string;
  /** What `strftime_now` tells, read once a render. Default: the system's local time. */
  readonly now?: () => Date;
  /** Longest time one render may take before its worker is stopped. Default 2000. */
  readonly deadlineMs?: number;
  /** Longest prompt a render may give, in UTF-16 units. Default 8 Mi. */
  readonly maxOutputCharacters?: number;
}

/** The ChatTemplate port; it owns a worker thread that parsed the template and does not keep the process alive. */
export interface TextChatTemplate extends ChatTemplate {
  /** The Jinja text that is rendered for conversations without tools. */
  readonly template: string;
  /** Stops the worker; renders under way end with `disposed`. Idempotent. */
  dispose(): Promise<void>;
}
