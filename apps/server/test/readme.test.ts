import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultText, SETTINGS, SETTING_NAMES, toFlag, toVariable } from '../src/settings.ts';

const README = path.resolve(import.meta.dirname, '../README.md');

/** One row a setting; `KVASIR_TEST_UPDATE_README=1` writes them into the README. */
function settingsTable(): string {
  const rows = SETTING_NAMES.map((name) => {
    const help = `${SETTINGS[name].help}`.replaceAll('|', '\\|');
    return `| \`${name}\` | \`--${toFlag(name)}\` | \`${toVariable(name)}\` | ${help} | ${defaultText(name)} |`;
  });
  return ['| In the file | Flag | Variable | What it does | Default |', '|---|---|---|---|---|', ...rows, ''].join(
    '\n',
  );
}

describe('the README', () => {
  it('lists every setting as the schema has it', () => {
    const marker = '<!-- settings -->\n';
    const text = readFileSync(README, 'utf8');
    const head = text.slice(0, text.indexOf(marker) + marker.length);
    if (process.env['KVASIR_TEST_UPDATE_README'] === '1') writeFileSync(README, `${head}\n${settingsTable()}`);
    expect(readFileSync(README, 'utf8')).toBe(`${head}\n${settingsTable()}`);
  });
});
