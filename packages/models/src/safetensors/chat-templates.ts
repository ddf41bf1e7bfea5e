import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { KvasirError } from '@kvasir/domain';
import { fileAccessError } from '../files/byte-source.ts';
import { readJsonObject, readTextFile } from '../files/json-file.ts';

const MAX_TEMPLATE_BYTES = 4 * 2 ** 20;
const MAX_CONFIG_BYTES = 64 * 2 ** 20;

/**
 * Collects a directory's chat templates by name. Later sources replace earlier ones, as the Hugging Face loaders do:
 * `chat_template` of tokenizer_config.json (text, or a list of named ones), chat_template.json, chat_template.jinja,
 * additional_chat_templates/NAME.jinja.
 * @throws KvasirError `file-corrupt`, `file-unreadable`, `file-foreign`
 */
export function readChatTemplates(directory: string): ReadonlyMap<string, string> {
  const templates = new Map<string, string>();
  for (const name of ['tokenizer_config.json', 'chat_template.json']) {
    const path = join(directory, name);
    if (existsSync(path)) addFromConfig(path, readJsonObject(path, MAX_CONFIG_BYTES)['chat_template'], templates);
  }
  const own = join(directory, 'chat_template.jinja');
  if (existsSync(own)) templates.set('default', readTextFile(own, MAX_TEMPLATE_BYTES));
  const others = join(directory, 'additional_chat_templates');
  if (existsSync(others)) {
    for (const file of listDirectory(others).filter((name) => name.endsWith('.jinja'))) {
      templates.set(basename(file, '.jinja'), readTextFile(join(others, file), MAX_TEMPLATE_BYTES));
    }
  }
  return templates;
}

// -------------------------------------------------------------------------------------------------------------- pieces

function addFromConfig(path: string, value: unknown, templates: Map<string, string>): void {
  if (value === undefined || value === null) return;
  if (typeof value === 'string') {
    templates.set('default', value);
    return;
  }
  for (const item of Array.isArray(value) ? (value as unknown[]) : [null]) {
    const { name, template } = (item ?? {}) as { name?: unknown; template?: unknown };
    if (typeof name !== 'string' || typeof template !== 'string') {
      throw new KvasirError(
        'file-corrupt',
        `${path}: chat_template: expected text or a list of {name, template}, found ${JSON.stringify(value).slice(0, 120)}`,
        { facts: { path, key: 'chat_template' } },
      );
    }
    templates.set(name, template);
  }
}

function listDirectory(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch (cause) {
    throw fileAccessError(path, cause);
  }
}
