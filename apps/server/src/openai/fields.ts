/**
 * What becomes of every request field. Three tables per endpoint: *implemented* fields are parsed by the schema,
 * *accepted* ones do not change the output and are ignored whatever they hold, *refused* ones would change it and are
 * answered with `unsupported_parameter` unless they hold a neutral value, one that asks for what happens anyway.
 * A field in none of them is unknown and refused by name, which catches misspellings.
 */
export interface FieldTables {
  readonly implemented: ReadonlySet<string>;
  readonly accepted: ReadonlySet<string>;
  readonly refused: ReadonlyMap<string, RefusedField>;
}

export interface RefusedField {
  /** Whether the value asks for nothing beyond the default behaviour; null always does. */
  isNeutral(value: unknown): boolean;
  /** What to do instead; ends the message. */
  readonly advice: string;
}

const never = (): boolean => false;
const isEmptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0;
const oneOf =
  (...neutral: readonly unknown[]) =>
  (value: unknown): boolean =>
    neutral.includes(value);
const isTextFormat = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && (value as { type?: unknown }).type === 'text';
const isTextOnly = (value: unknown): boolean => Array.isArray(value) && value.length === 1 && value[0] === 'text';

/** Sampling and control fields both endpoints share; the second line names extensions to OpenAI's interface. */
const SHARED = [
  'model',
  'frequency_penalty',
  'logit_bias',
  'logprobs',
  'max_tokens',
  'n',
  'presence_penalty',
  'seed',
  'stop',
  'stream',
  'stream_options',
  'temperature',
  'top_p',
  'top_k',
  'min_p',
  'repetition_penalty',
  'ignore_eos',
  'agent_id',
] as const;

export const CHAT_FIELDS: FieldTables = {
  implemented: new Set([
    ...SHARED,
    'messages',
    'max_completion_tokens',
    'top_logprobs',
    // An extension: variables a model's chat template reads, such as enable_thinking.
    'chat_template_kwargs',
  ]),
  accepted: new Set([
    'metadata',
    'parallel_tool_calls',
    'prediction',
    'prompt_cache_key',
    'prompt_cache_options',
    'prompt_cache_retention',
    'safety_identifier',
    'service_tier',
    'store',
    'user',
  ]),
  refused: new Map<string, RefusedField>([
    ['audio', { isNeutral: never, advice: 'leave it out; only text is generated' }],
    [
      'function_call',
      { isNeutral: oneOf('none', 'auto'), advice: 'leave it out; calls are not parsed from the output' },
    ],
    ['functions', { isNeutral: isEmptyList, advice: 'leave it out; calls are not parsed from the output' }],
    ['modalities', { isNeutral: isTextOnly, advice: "send ['text'] or leave it out" }],
    ['moderation', { isNeutral: never, advice: 'leave it out and moderate in your application' }],
    [
      'reasoning_effort',
      { isNeutral: never, advice: 'set the variable your model reads through chat_template_kwargs' },
    ],
    ['response_format', { isNeutral: isTextFormat, advice: "send {type: 'text'} or leave it out" }],
    ['tool_choice', { isNeutral: oneOf('none', 'auto'), advice: 'leave it out; calls are not parsed from the output' }],
    ['tools', { isNeutral: isEmptyList, advice: 'leave it out; calls are not parsed from the output' }],
    ['verbosity', { isNeutral: oneOf('medium'), advice: 'say in the prompt how long the answer is to be' }],
    ['web_search_options', { isNeutral: never, advice: 'leave it out; the server reaches no network' }],
  ]),
};

export const COMPLETION_FIELDS: FieldTables = {
  implemented: new Set([...SHARED, 'prompt', 'echo', 'best_of']),
  accepted: new Set(['user']),
  refused: new Map<string, RefusedField>([
    ['suffix', { isNeutral: oneOf(''), advice: 'write the fill-in-the-middle form of your model into the prompt' }],
  ]),
};
