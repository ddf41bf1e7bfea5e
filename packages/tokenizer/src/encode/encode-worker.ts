import { workerData } from 'node:worker_threads';
import type { TokenizerModel } from '../model/tokenizer-model.ts';
import { serveLane } from '../worker/worker-main.ts';
import { FragmentEncoder } from './fragment-encoder.ts';
import { SpecialSplitter, type Fragment, type TrustedRange } from './special-splitter.ts';

export type EncodeRequest =
  /** Several texts, each as its fragments: one result each. */
  | { readonly kind: 'fragments'; readonly texts: readonly (readonly Fragment[])[] }
  /** One long text whose special tokens are looked for here: one result. */
  | { readonly kind: 'text'; readonly text: string; readonly trusted: readonly TrustedRange[] };

const model = workerData as TokenizerModel;
const encoder = new FragmentEncoder(model);
const splitter = new SpecialSplitter(model.special);

serveLane<EncodeRequest, readonly Int32Array[]>((request) => {
  const texts = request.kind === 'text' ? [splitter.split(request.text, request.trusted)] : request.texts;
  const value = texts.map((fragments) => encoder.encode(fragments));
  return { value, transfer: value.map((ids) => ids.buffer as ArrayBuffer) };
});
