import { workerData } from 'node:worker_threads';
import type { TokenizerModel } from '../model/tokenizer-model.ts';
import { serveLane } from '../worker/worker-main.ts';
import { FragmentEncoder } from './fragment-encoder.ts';
import { SpecialSplitter, type Fragment, type TrustedRange } from './special-splitter.ts';

export type EncodeRequest =
  /** Several texts, each as its fragments: one result each. */
  | { readonly kind: 'fragments'; readonly texts: readonly (readonly Fragment[])[] }
  /** One long text whose special tokens are looked for here: one result. */
  | { readonly kind: 'text'; readonly text: string; readonly trusted: readonly TrustedRange[] }
  /** A long text that is only cut. */
  | { readonly kind: 'split'; readonly text: string; readonly trusted: readonly TrustedRange[] };

export interface EncodeResult {
  readonly ids: readonly Int32Array[];
  /** Of a `split`. */
  readonly fragments: readonly Fragment[];
}

const model = workerData as TokenizerModel;
const encoder = new FragmentEncoder(model);
const splitter = new SpecialSplitter(model.special);

serveLane<EncodeRequest, EncodeResult>((request) => {
  if (request.kind === 'split') {
    return { value: { ids: [], fragments: splitter.split(request.text, request.trusted) }, transfer: [] };
  }
  const texts = request.kind === 'text' ? [splitter.split(request.text, request.trusted)] : request.texts;
  const ids = texts.map((fragments) => encoder.encode(fragments));
  return { value: { ids, fragments: [] }, transfer: ids.map((one) => one.buffer as ArrayBuffer) };
});
