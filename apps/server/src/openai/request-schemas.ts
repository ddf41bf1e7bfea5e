import { z } from '@hono/zod-openapi';

/** The implemented fields of both endpoints. Null means absent everywhere, as OpenAI's clients expect. */

const MAX_STOPS = 16;
const MAX_STOP_CHARACTERS = 1024;
const stopString = z.string().min(1).max(MAX_STOP_CHARACTERS);

const sharedFields = {
  agent_id: z
    .string()
    .nullish()
    .describe(
      'Extension: the agent whose turn this is, made where nobody has it; the header X-Agent-ID does the same.',
    ),
  model: z.string().describe('The loaded model’s name, or "default".'),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  ignore_eos: z.boolean().nullish().describe('Extension: generate on past the end-of-text token.'),
  logit_bias: z
    .record(z.string().regex(/^\d{1,10}$/, 'expected token ids as keys'), z.number().min(-100).max(100))
    .nullish(),
  max_tokens: z.int().min(1).nullish(),
  min_p: z.number().min(0).max(1).nullish().describe('Extension: drop tokens below this share of the likeliest.'),
  n: z.int().min(1).max(128).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  repetition_penalty: z.number().gt(0).max(10).nullish().describe('Extension: over prompt and output; 1 is off.'),
  seed: z.int().nullish(),
  stop: z.union([stopString, z.array(stopString).max(MAX_STOPS)]).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.boolean().nullish() })
    .nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_k: z
    .int()
    .min(-1)
    .max(2 ** 31 - 1)
    .nullish()
    .describe('Extension: keep the likeliest; 0 and -1 are off.'),
  top_p: z.number().min(0).max(1).nullish(),
};

const textPart = z.strictObject({
  type: z.literal('text'),
  text: z.string(),
  prompt_cache_breakpoint: z.unknown().optional(),
});
const refusalPart = z.strictObject({ type: z.literal('refusal'), refusal: z.string() });
const textContent = z.union([z.string(), z.array(textPart).min(1)]);
const functionCall = z.strictObject({ name: z.string(), arguments: z.string() });
const toolCall = z.strictObject({ id: z.string(), type: z.literal('function'), function: functionCall });
const name = z.string().optional();

const messageSchema = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), content: textContent, name }),
  z.strictObject({ role: z.literal('developer'), content: textContent, name }),
  z.strictObject({ role: z.literal('user'), content: textContent, name }),
  z.strictObject({
    role: z.literal('assistant'),
    content: z.union([z.string(), z.array(z.union([textPart, refusalPart])).min(1)]).nullish(),
    name,
    refusal: z.string().nullish(),
    reasoning_content: z.string().nullish(),
    tool_calls: z.array(toolCall).nullish(),
    function_call: functionCall.nullish(),
    audio: z.null().optional(),
  }),
  z.strictObject({ role: z.literal('tool'), content: textContent, tool_call_id: z.string() }),
  z.strictObject({ role: z.literal('function'), content: z.string().nullable(), name: z.string() }),
]);

export const chatRequestSchema = z
  .strictObject({
    ...sharedFields,
    messages: z.array(messageSchema).min(1),
    max_completion_tokens: z.int().min(1).nullish(),
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(20).nullish(),
    chat_template_kwargs: z
      .record(z.string(), z.unknown())
      .nullish()
      .describe('Extension: variables the model’s chat template reads.'),
  })
  .openapi('CreateChatCompletionRequest');

export type Prompt = string | readonly string[] | readonly number[] | readonly (readonly number[])[];

/** Checked by hand: a prompt may be a hundred thousand numbers, which a schema would visit one object at a time. */
function isPrompt(value: unknown): boolean {
  if (typeof value === 'string') return true;
  if (!Array.isArray(value) || value.length === 0) return false;
  if (value.every((item) => typeof item === 'string')) return true;
  return isTokenIds(value) || isListOfTokenIds(value);
}

function isListOfTokenIds(values: readonly unknown[]): boolean {
  return values.every((item) => isTokenIds(item));
}

function isTokenIds(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && value.every((id) => Number.isInteger(id) && id >= 0);
}

const textForm = { type: 'string' as const };
const idsForm = { type: 'array' as const, items: { type: 'integer' as const, minimum: 0 }, minItems: 1 };

export const completionRequestSchema = z
  .strictObject({
    ...sharedFields,
    prompt: z.custom<Prompt>(isPrompt, 'expected a string, token ids, or a list of either').openapi({
      type: ['string', 'array'],
      oneOf: [
        textForm,
        { type: 'array', items: textForm, minItems: 1 },
        idsForm,
        { type: 'array', items: idsForm, minItems: 1 },
      ],
    }),
    logprobs: z.int().min(0).max(20).nullish(),
    echo: z.boolean().nullish(),
    best_of: z.int().min(1).max(128).nullish(),
  })
  .openapi('CreateCompletionRequest');

export type ChatRequest = z.output<typeof chatRequestSchema>;
export type CompletionRequest = z.output<typeof completionRequestSchema>;
export type RequestMessage = ChatRequest['messages'][number];
