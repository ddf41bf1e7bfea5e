import { KvasirError } from '@kvasir/domain';

/** A file in a Hugging Face Hub repository. */
export interface HubReference {
  /** `organisation/repository`. */
  readonly repository: string;
  /** Path inside the repository, `/`-separated. */
  readonly file: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

/** Hub names: letters, digits, `-`, `_`, `.`; neither starting nor ending with `-` or `.`. */
const NAME = /^(?![-.])[A-Za-z0-9._-]{1,96}(?<![-.])$/;
const REVISION = /^(?![./-])[A-Za-z0-9._/-]{1,200}$/;
const SEGMENT = /^[^\\/:*?"<>|\p{Cc}]{1,200}$/u;

/**
 * Parses `hf:org/repo:file` and `hf:org/repo:file@revision`; the revision is `main` when absent.
 * @returns null when the text does not start with `hf:`, so that it can be taken for a path
 * @throws KvasirError `invalid-argument` when it does and the rest is malformed
 */
export function parseHubReference(text: string): HubReference | null {
  if (!text.startsWith('hf:')) return null;
  const match = /^hf:(?<repository>[^:@]+):(?<file>[^@]+)(?:@(?<revision>.+))?$/.exec(text);
  const { repository = '', file = '', revision = 'main' } = match?.groups ?? {};
  const names = repository.split('/');
  const segments = file.split('/');
  const isValid =
    names.length === 2 &&
    names.every((name) => NAME.test(name) && !name.includes('..')) &&
    segments.every((segment) => SEGMENT.test(segment) && segment !== '.' && segment !== '..') &&
    REVISION.test(revision) &&
    !revision.includes('..');
  if (!isValid) {
    throw new KvasirError(
      'invalid-argument',
      `model reference: expected hf:organisation/repository:file.gguf[@revision], found ${JSON.stringify(text.slice(0, 300))}`,
      { facts: { reference: text.slice(0, 300) } },
    );
  }
  return { repository, file, revision };
}
