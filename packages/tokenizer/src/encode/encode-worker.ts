import { workerData } from 'node:worker_threads';
import type { TokenizerModel } from '../model/tokenizer-model.ts';
import { serveLane } from '../worker/worker-main.ts';
import { FragmentEncoder } from './fragment-encoder.ts';
import type { Fragment } from './special-splitter.ts';

/** Several texts, each as its fragments. */
export type EncodeRequest = readonly (readonly Fragment[])[];

const encoder = new FragmentEncoder(workerData as TokenizerModel);

serveLane<EncodeRequest, readonly Int32Array[]>((texts) => {
  const value = texts.map((fragments) => encoder.encode(fragments));
  return { value, transfer: value.map((ids) => ids.buffer as ArrayBuffer) };
});
