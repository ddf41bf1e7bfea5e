import type { GgufValue } from './gguf.ts';

/** A byte-level BPE vocabulary: 256 bytes, some common pairs, three control tokens, padding. Large enough to test with. */
export interface TinyVocabulary {
  readonly tokens: readonly string[];
  /** GGUF token types: 1 normal, 3 control, 5 unused. */
  readonly types: readonly number[];
  readonly merges: readonly string[];
  readonly endOfText: number;
  readonly endOfTurn: number;
}

const PAIRS = [
  't h',
  'i n',
  'e r',
  'a n',
  'o n',
  'Ġ t',
  'Ġ a',
  'th e',
  'in g',
  'h e',
  'Ġt he',
  'an d',
  'Ġ s',
  'Ġ w',
  'o u',
  'r e',
  'n d',
  'Ġa nd',
];

export const CHATML = `{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`;

/** GPT-2's printable stand-ins for bytes: visible Latin-1 characters stand for themselves, the rest from U+0100 up. */
function byteCharacters(): string[] {
  const visible = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : next++));
}

export function tinyVocabulary(size: number): TinyVocabulary {
  const tokens = [...byteCharacters(), ...PAIRS.map((pair) => pair.replace(' ', ''))];
  const types = tokens.map(() => 1);
  const endOfText = tokens.push('<|endoftext|>') - 1;
  tokens.push('<|im_start|>');
  const endOfTurn = tokens.push('<|im_end|>') - 1;
  types.push(3, 3, 3);
  if (size < tokens.length) throw new Error(`vocabulary size: expected at least ${tokens.length}, found ${size}`);
  while (tokens.length < size) {
    types.push(5);
    tokens.push(`[unused${tokens.length}]`);
  }
  return { tokens, types, merges: PAIRS, endOfText, endOfTurn };
}

export function tokenizerMetadata(vocabulary: TinyVocabulary): [string, GgufValue][] {
  return [
    ['tokenizer.ggml.model', { type: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'qwen2' }],
    ['tokenizer.ggml.tokens', { type: 'strings', value: vocabulary.tokens }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: vocabulary.types }],
    ['tokenizer.ggml.merges', { type: 'strings', value: vocabulary.merges }],
    ['tokenizer.ggml.eos_token_id', { type: 'u32', value: vocabulary.endOfTurn }],
    ['tokenizer.ggml.padding_token_id', { type: 'u32', value: vocabulary.endOfText }],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: false }],
    ['tokenizer.chat_template', { type: 'string', value: CHATML }],
  ];
}
