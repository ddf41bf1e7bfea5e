import { SingleBar } from 'cli-progress';

/** Shows how far long work has come, on standard error; nothing where that is no terminal. */
export interface Progress {
  show(label: string, done: number, total: number, unit: 'bytes' | 'tokens' | 'chunks'): void;
  /** Takes the bar away, before something else is printed. */
  clear(): void;
}

/** Work shorter than this shows no bar. */
const PATIENCE_MS = 500;

export function createProgress(isTerminal: boolean): Progress {
  if (!isTerminal) return { show: () => undefined, clear: () => undefined };
  return new ProgressBar();
}

class ProgressBar implements Progress {
  #bar: SingleBar | null = null;
  #label = '';
  #startedMs = performance.now();

  show(label: string, done: number, total: number, unit: 'bytes' | 'tokens' | 'chunks'): void {
    if (label !== this.#label) {
      this.clear();
      this.#label = label;
      this.#startedMs = performance.now();
    }
    if (performance.now() - this.#startedMs < PATIENCE_MS) return;
    this.#bar ??= startBar(label, total, unit);
    this.#bar.update(done);
  }

  clear(): void {
    this.#bar?.stop();
    this.#bar = null;
    this.#label = '';
  }
}

function startBar(label: string, total: number, unit: string): SingleBar {
  const show = (value: number) => (unit === 'bytes' ? `${(value / 2 ** 20).toFixed(1)} MiB` : `${value} ${unit}`);
  const bar = new SingleBar({
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    format: (options, parameters) => {
      const size = 30;
      const filled = Math.round(parameters.progress * size);
      const etaSeconds = Number.isFinite(parameters.eta) ? Math.round(parameters.eta) : 0;
      void options;
      return `${label} ${'█'.repeat(filled)}${'░'.repeat(size - filled)} ${show(parameters.value)} of ${show(parameters.total)}, ${etaSeconds} s left`;
    },
  });
  bar.start(total, 0);
  return bar;
}
