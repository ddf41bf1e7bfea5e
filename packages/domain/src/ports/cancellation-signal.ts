/**
 * The part of the platform's AbortSignal the ports rely on. Named here because the domain knows no platform; every
 * AbortSignal is one.
 */
export interface CancellationSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}
