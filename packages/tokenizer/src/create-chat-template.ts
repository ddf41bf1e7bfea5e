import { KvasirError, type Conversation, type PromptSegment, type RenderOptions } from '@kvasir/domain';
import type { ChatTemplateOptions, TextChatTemplate } from './chat-templates.ts';
import type { TokenizerSource } from './source.ts';
import type { RenderRequest, RenderSetting } from './template/render-worker.ts';
import { readTemplateSource } from './template/template-source.ts';
import { WorkerLane } from './worker/worker-lane.ts';

const DEFAULTS = { deadlineMs: 2000, maxOutputCharacters: 8 << 20 } as const;

/** Well above what the interpreter lets a template make: a worker that reaches its limit can end the process. */
const WORKER_HEAP_MB = 1024;

/** Names OpenAI-shaped conversations with tools go by, where a model has more than one template. */
const TOOL_TEMPLATE = 'tool_use';

/**
 * Reads a model's chat template and parses it, off the caller's thread like every render.
 * @throws KvasirError `template-failed` when the source has no template (none is guessed) or it does not parse
 */
export async function createChatTemplate(
  source: TokenizerSource,
  options: ChatTemplateOptions = {},
): Promise<TextChatTemplate> {
  const found = await readTemplateSource(source);
  const templates = options.template === undefined ? found.templates : new Map([['default', options.template]]);
  const name = options.name ?? (templates.has('default') ? 'default' : [...templates.keys()][0]);
  const template = name === undefined ? undefined : templates.get(name);
  if (name === undefined || template === undefined) throw noTemplate(options.name, [...templates.keys()]);
  const chatTemplate = new WorkerChatTemplate({ ...found, templates }, name, template, options);
  try {
    await chatTemplate.parse();
  } catch (error) {
    await chatTemplate.dispose();
    throw error;
  }
  return chatTemplate;
}

class WorkerChatTemplate implements TextChatTemplate {
  readonly template: string;
  readonly #name: string;
  readonly #toolName: string;
  readonly #now: () => Date;
  readonly #lane: WorkerLane<RenderRequest, readonly PromptSegment[]>;

  constructor(
    source: Omit<RenderSetting, 'maxOutputCharacters'>,
    name: string,
    template: string,
    options: ChatTemplateOptions,
  ) {
    this.template = template;
    this.#name = name;
    this.#toolName = options.name === undefined && source.templates.has(TOOL_TEMPLATE) ? TOOL_TEMPLATE : name;
    this.#now = options.now ?? (() => new Date());
    const setting: RenderSetting = {
      templates: source.templates,
      tokenVariables: source.tokenVariables,
      specialTexts: source.specialTexts,
      maxOutputCharacters: options.maxOutputCharacters ?? DEFAULTS.maxOutputCharacters,
    };
    this.#lane = new WorkerLane({
      module: 'template/render-worker',
      workerData: setting,
      deadlineMs: options.deadlineMs ?? DEFAULTS.deadlineMs,
      maxHeapMb: WORKER_HEAP_MB,
      task: 'chat template',
      crashCode: 'template-failed',
    });
  }

  /** @throws KvasirError `template-failed` with the parser's message */
  async parse(): Promise<void> {
    await this.#lane.run({ template: this.#name, untrusted: null, addGenerationPrompt: false, nowMs: 0 });
  }

  render(conversation: Conversation, options: RenderOptions): Promise<readonly PromptSegment[]> {
    const hasTools = conversation.tools !== undefined && conversation.tools.length > 0;
    const untrusted = {
      documents: null,
      ...options.variables,
      messages: conversation.messages,
      tools: hasTools ? conversation.tools : null,
    };
    const request: RenderRequest = {
      template: hasTools ? this.#toolName : this.#name,
      untrusted,
      addGenerationPrompt: options.addGenerationPrompt,
      nowMs: this.#now().getTime(),
    };
    return this.#lane.run(request, options.signal);
  }

  dispose(): Promise<void> {
    return this.#lane.dispose();
  }
}

function noTemplate(asked: string | undefined, names: readonly string[]): KvasirError {
  return new KvasirError(
    'template-failed',
    asked === undefined || names.length === 0
      ? 'chat template: expected one in the model, found none; give a template file, or use plain completions'
      : `chat template: expected one of ${names.join(', ')}, found no ${asked}`,
    { facts: { names } },
  );
}
