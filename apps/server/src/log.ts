import type { Narrator } from '@kvasir/domain';
import { pino, type Logger } from 'pino';

/** JSON lines on standard error; standard output belongs to what a command prints. */
export function createLog(level: string): Logger {
  return pino({ level, base: null }, pino.destination({ dest: 2, sync: true }));
}

/** What the engine tells becomes a log line of its own level. */
export function createNarrator(log: Logger): Narrator {
  return {
    narrate({ level, name, facts }) {
      if (log.isLevelEnabled(level)) log[level](facts, name);
    },
  };
}
