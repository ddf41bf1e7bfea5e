import { textBefore, writeTurnText } from '@kvasir/engine';
import { spellAnswer } from './answer-text.ts';
import type { GenerationPlan } from './generation-plan.ts';
import type { EncodedPrompt } from './prompt-encoder.ts';
import type { ServedModel } from './served-model.ts';
import type { TextChoice } from './text-choice.ts';

/**
 * A choice has ended well: what it was run with is remembered, and the agent whose turn it was keeps its tokens. Flushed
 * when it resolves. @returns whether an agent kept it
 * @throws KvasirError `disk-full`, `disk-unwritable`: the agent is as it was before the turn
 */
export async function concludeTurn(model: ServedModel, plan: GenerationPlan, choice: TextChoice): Promise<boolean> {
  const prompt = plan.prompts[Math.floor(choice.index / plan.numChoices)] as EncodedPrompt;
  const { tokenIds, visibleCharacters } = choice.answer;
  const answer = spellAnswer(model.tokenizer, tokenIds, visibleCharacters, plan.continues);
  const text = model.prompts.toTurn(prompt, answer, tokenIds);
  if (text !== null) model.prompts.remember(plan.tenant, text);
  if (plan.turn === null) return false;
  const kept = new Int32Array(prompt.ids.length + answer.keptTokens);
  kept.set(prompt.ids);
  kept.set(tokenIds.slice(0, answer.keptTokens), prompt.ids.length);
  const { promptTokens, cachedTokens } = choice.generation.stats;
  await plan.turn.commit({
    tokenIds: kept,
    segments: writeTurnText(textBefore(plan.turn.manifest, kept, prompt.before), text),
    promptTokens,
    cachedTokens,
  });
  return true;
}
