import { randomInt } from 'node:crypto';
import { KvasirError, kvScopeOf } from '@kvasir/domain';
import { createStopMatcher } from '@kvasir/tokenizer';
import { ChoiceStream } from './choice-stream.ts';
import { concludeTurn } from './conclude-turn.ts';
import type { GenerationPlan } from './generation-plan.ts';
import type { ServedModel } from './served-model.ts';
import { TextChoice } from './text-choice.ts';

/**
 * Submits every choice of a request; all of them or, when one is refused, none.
 * @throws KvasirError as the engine's `submit`
 */
export function startGeneration(model: ServedModel, plan: GenerationPlan): ChoiceStream {
  for (const { ids } of plan.prompts) requireRoom(ids, model.facts.contextLength);
  const choices: TextChoice[] = [];
  try {
    for (const { ids: promptIds } of plan.prompts) {
      for (let sample = 0; sample < plan.numChoices; sample += 1) {
        const generation = model.engine.submit({
          promptIds,
          sampling: { ...plan.sampling, seed: seedOfSample(plan.seed, sample) },
          maxTokens: plan.maxTokens,
          stopIds: plan.ignoreEos ? [] : model.stopIds,
          tenant: plan.turn === null ? plan.tenant : kvScopeOf(plan.turn.manifest),
          ...(plan.turn === null ? {} : { owner: plan.turn.manifest.agentId }),
        });
        const detokenizer = model.tokenizer.createDetokenizer({ skipSpecial: true, continues: plan.continues });
        choices.push(new TextChoice(choices.length, generation, detokenizer, createStopMatcher(plan.stops)));
      }
    }
  } catch (error) {
    for (const choice of choices) choice.generation.abort();
    throw error;
  }
  return new ChoiceStream(choices, {
    conclude: (choice) => concludeTurn(model, plan, choice),
    leave: () => plan.turn?.release(),
  });
}

/** Said before the engine looks at every id of a prompt that is far too long. */
function requireRoom(promptIds: Int32Array, contextLength: number): void {
  if (promptIds.length <= contextLength) return;
  throw new KvasirError(
    'context-length-exceeded',
    `prompt: expected at most the context's ${contextLength} tokens, found ${promptIds.length}; shorten it`,
    { facts: { contextLength, promptTokens: promptIds.length } },
  );
}

/** A seed of our own choosing that survives JSON: 48 random bits. */
export function chooseSeed(): number {
  return randomInt(2 ** 48 - 1);
}

/** Samples of one prompt need streams of their own; the first has the seed that is reported. */
function seedOfSample(seed: number, sample: number): bigint {
  return BigInt.asUintN(64, BigInt(seed) + BigInt(sample) * 0x9e3779b97f4a7c15n);
}
