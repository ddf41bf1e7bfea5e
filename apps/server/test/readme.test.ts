import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultText, SETTINGS, SETTING_NAMES, toFlag, toVariable } from '../src/settings.ts';

/** Rows of the table below the marker as their cells, whatever the padding. */
function tableOf(readme: string): string[][] {
  const rows = readme.slice(readme.indexOf('<!-- settings -->')).match(/^\|.*\|$/gm) ?? [];
  return rows.map((row) =>
    row
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

describe('the README', () => {
  it('lists every setting as the schema has it', () => {
    const readme = readFileSync(path.resolve(import.meta.dirname, '../README.md'), 'utf8');
    const expected = SETTING_NAMES.map((name) => [
      `\`${name}\``,
      `\`--${toFlag(name)}\``,
      `\`${toVariable(name)}\``,
      SETTINGS[name].help.replaceAll('|', '\\|'),
      defaultText(name),
    ]);
    expect(tableOf(readme).slice(2)).toEqual(expected);
  });
});
