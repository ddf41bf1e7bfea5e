import { KvasirError, type PromptSegment } from '@kvasir/domain';
import { workerData } from 'node:worker_threads';
import { serveLane } from '../worker/worker-main.ts';
import type { Node } from './jinja/ast.ts';
import { createGlobals } from './jinja/globals.ts';
import { Interpreter, OutputTooLong } from './jinja/interpreter.ts';
import { parseTemplate } from './jinja/syntax.ts';
import { TemplateError, type Value, fromJson } from './jinja/values.ts';
import { segmentPrompt } from './segment-prompt.ts';

/** What a render worker is started with. */
export interface RenderSetting {
  readonly templates: ReadonlyMap<string, string>;
  readonly tokenVariables: Readonly<Record<string, string>>;
  readonly specialTexts: readonly string[];
  readonly maxOutputCharacters: number;
}

/** Which template with which variables; without variables the template is only parsed. */
export interface RenderRequest {
  readonly template: string;
  /** What the caller sent: messages, tools, variables. */
  readonly untrusted: Readonly<Record<string, unknown>> | null;
  readonly addGenerationPrompt: boolean;
  readonly nowMs: number;
}

const setting = workerData as RenderSetting;
const programs = new Map<string, Node>();

serveLane<RenderRequest, readonly PromptSegment[]>((request) => {
  try {
    return { value: answer(request) };
  } catch (error) {
    throw asKvasirError(error);
  }
});

function answer(request: RenderRequest): readonly PromptSegment[] {
  const program = programFor(request.template);
  if (request.untrusted === null) return [];
  const interpreter = new Interpreter(setting.maxOutputCharacters);
  const fixed = fromJson({ ...setting.tokenVariables, add_generation_prompt: request.addGenerationPrompt });
  const globals = createGlobals(new Date(request.nowMs));
  return segmentPrompt(
    (untrusted) =>
      interpreter.render(program, new Map([...globals, ...entries(fixed), ...entries(fromJson(untrusted))])),
    request.untrusted,
    setting.specialTexts,
  );
}

function programFor(name: string): Node {
  const known = programs.get(name);
  if (known !== undefined) return known;
  const program = parseTemplate(setting.templates.get(name) ?? '');
  programs.set(name, program);
  return program;
}

function entries(value: Value): [string, Value][] {
  return value instanceof Map ? [...value].map(([key, member]) => [String(key), member]) : [];
}

function asKvasirError(error: unknown): unknown {
  if (error instanceof TemplateError) return new KvasirError('template-failed', `chat template: ${error.message}`);
  if (error instanceof OutputTooLong) {
    return new KvasirError(
      'request-too-large',
      `chat template: expected a prompt of at most ${setting.maxOutputCharacters} UTF-16 units, found more; send less`,
    );
  }
  // Recursion without end, or a text longer than JavaScript holds.
  if (error instanceof RangeError) return new KvasirError('template-failed', `chat template: ${error.message}`);
  return error;
}
